// In place of the LZ4 library: its block format, written by a search that keeps one position a hash.
//
// Format: https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md. A sequence is a token
// (lengths of literals and match, 4 bits each, more bytes when 15), literals, the match's distance.
// The last five bytes are literals, and no match begins in the last twelve.

#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

// Returns the bytes written to `to`, which has room for LZ4_compressBound(size).
inline int LZ4_compress_default(const char* from, char* to, int size, int /*room*/) {
  constexpr int kLeast = 4, kLastLiterals = 5, kLastStart = 12, kFarthest = 65535, kHashBits = 13;
  char* out = to;
  const auto more = [&](int length) {
    for (; length >= 255; length -= 255) *out++ = static_cast<char>(255);
    *out++ = static_cast<char>(length);
  };
  const auto word = [&](int place) {
    uint32_t value;
    std::memcpy(&value, from + place, sizeof value);
    return value;
  };
  const auto sequence = [&](int first, int literals, int distance, int length) {
    const int extra = length - kLeast;
    const int low = distance ? (extra < 15 ? extra : 15) : 0;
    *out++ = static_cast<char>((literals < 15 ? literals : 15) << 4 | low);
    if (literals >= 15) more(literals - 15);
    std::memcpy(out, from + first, literals);
    out += literals;
    if (!distance) return;
    *out++ = static_cast<char>(distance & 0xFF);
    *out++ = static_cast<char>(distance >> 8);
    if (extra >= 15) more(extra - 15);
  };
  std::vector<int> places(1 << kHashBits, -1);
  int done = 0;  // what the sequences so far say
  for (int place = 0; place + kLastStart < size;) {
    const uint32_t here = word(place);
    int& known = places[here * 2654435761u >> (32 - kHashBits)];
    const int found = known;
    known = place;
    if (found < 0 || place - found > kFarthest || word(found) != here) {
      ++place;
      continue;
    }
    int length = kLeast;
    while (place + length < size - kLastLiterals && from[place + length] == from[found + length])
      ++length;
    sequence(done, place - done, place - found, length);
    done = place += length;
  }
  sequence(done, size - done, 0, kLeast);
  return static_cast<int>(out - to);
}
