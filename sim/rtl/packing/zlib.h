// In place of zlib: its format (RFC 1950, RFC 1951) without compression.
//
// The FST writer packs tables of names, initial values and times with it, and keeps what is not
// shorter when packed as it is. The values themselves are packed with LZ4.

#pragma once

#include <cstdint>
#include <cstring>

typedef unsigned char Bytef;
typedef unsigned long uLong;
typedef unsigned long uLongf;
constexpr int Z_OK = 0;

inline uLong compressBound(uLong size) { return size + size / 65535 * 5 + 16; }

inline int compress2(Bytef* to, uLongf* to_size, const Bytef* from, uLong size, int /*level*/) {
  Bytef* out = to;
  *out++ = 0x78;
  *out++ = 0x01;
  uint32_t low = 1, high = 0;  // Adler-32
  uLong done = 0;
  do {
    const uLong count = size - done < 65535 ? size - done : 65535;
    *out++ = done + count == size;  // the last block; stored
    for (const uLong field : {count, ~count}) {
      *out++ = field & 0xFF;
      *out++ = field >> 8 & 0xFF;
    }
    std::memcpy(out, from + done, count);
    out += count;
    for (uLong i = 0; i < count; ++i) {
      low = (low + from[done + i]) % 65521;
      high = (high + low) % 65521;
    }
    done += count;
  } while (done < size);
  for (const uint32_t half : {high, low}) {
    *out++ = half >> 8;
    *out++ = half & 0xFF;
  }
  *to_size = out - to;
  return Z_OK;
}
