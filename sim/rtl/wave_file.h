// The file below Verilator's VCD writer: text as it comes, or packed as FST if its name says so.
//
// FST is written by the library that comes with Verilator. It compresses with lz4.h and zlib.h;
// those in folder `packing` stand in for them, so that nothing has to be installed.

#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "fstcpp/fstcpp_variable_info.cpp"
#include "fstcpp/fstcpp_writer.cpp"
#include "verilated_vcd_c.h"

namespace {

// Reads VCD as Verilator writes it, a line at a time, and writes FST.
class FstPacker {
 public:
  explicit FstPacker(const std::string& path) : writer_(path) {
    writer_.setTimecale(-9);
    writer_.setWriter("Celosia");
  }

  void take(const char* text, std::size_t size) {
    for (const char* const end = text + size; text != end;) {
      const auto* stop = static_cast<const char*>(std::memchr(text, '\n', end - text));
      if (!stop) {
        rest_.append(text, end);
        return;
      }
      rest_.append(text, stop);
      line();
      rest_.clear();
      text = stop + 1;
    }
  }

  void close() { writer_.close(); }

 private:
  static constexpr uint64_t kBlockChanges = 4 << 20;  // of values, until they are written

  struct Signal {
    fst::Handle handle = 0;
    int bits = 0;
  };

  fst::Writer writer_;
  std::string rest_;
  std::vector<Signal> signals_;  // by code
  std::vector<uint64_t> value_;
  bool in_header_ = true;
  uint64_t changes_ = 0;

  // The inverse of Verilator's codes: digits of base 94, the lowest first, without a zero.
  static std::size_t code(const char* text) {
    std::size_t value = 0, weight = 1;
    for (; *text > ' '; ++text, weight *= 94) value += (*text - '!' + (weight > 1)) * weight;
    return value;
  }

  void line() {
    const char* const text = rest_.c_str();
    if (in_header_) {
      header(text);
    } else if (*text == '#') {
      if (changes_ > kBlockChanges) {
        writer_.flushValueChangeData();
        changes_ = 0;
      }
      writer_.emitTimeChange(std::strtoull(text + 1, nullptr, 10));
    } else if (*text == 'b') {
      vector(text + 1);
    } else if (*text == '0' || *text == '1') {
      writer_.emitValueChange(signals_[code(text + 1)].handle, uint64_t(*text - '0'));
      ++changes_;
    }
  }

  void header(const char* text) {
    text += std::strspn(text, " ");
    if (std::strncmp(text, "$enddefinitions", 15) == 0) {
      in_header_ = false;
    } else if (std::strncmp(text, "$upscope", 8) == 0) {
      writer_.upscope();
    } else if (std::strncmp(text, "$scope module ", 14) == 0) {
      text += 14;
      const std::string name(text, std::strcspn(text, " "));
      writer_.setScope(fst::Hierarchy::ScopeType::VCD_MODULE, name, std::string());
    } else if (std::strncmp(text, "$var ", 5) == 0) {
      variable(text + 5);
    }
  }

  // "wire  16 %$ name [15:0] $end"
  void variable(const char* text) {
    text += std::strcspn(text, " ");
    char* after;
    const int bits = std::strtol(text, &after, 10);
    after += std::strspn(after, " ");
    const std::size_t index = code(after);
    after += std::strcspn(after, " ");
    after += std::strspn(after, " ");
    const char* const end = std::strstr(after, " $end");
    if (index >= signals_.size()) signals_.resize(2 * index + 1);
    Signal& signal = signals_[index];
    const fst::Handle handle =
        writer_.createVar(fst::Hierarchy::VarType::VCD_WIRE, fst::Hierarchy::VarDirection::IMPLICIT,
                          bits, std::string(after, end ? end - after : std::strlen(after)),
                          signal.handle);
    if (!signal.handle) signal = {handle, bits};
  }

  void vector(const char* text) {
    const std::size_t length = std::strcspn(text, " ");
    const Signal& signal = signals_[code(text + length + 1)];
    value_.assign((signal.bits + 63) / 64, 0);
    for (std::size_t i = 0; i < length; ++i) {
      const std::size_t place = length - 1 - i;
      value_[place / 64] |= uint64_t(text[i] == '1') << place % 64;
    }
    if (signal.bits <= 64)
      writer_.emitValueChange(signal.handle, value_[0]);
    else
      writer_.emitValueChange(signal.handle, value_.data());
    changes_ += value_.size();
  }
};

class WaveFile : public VerilatedVcdFile {
 public:
  const std::string& error() const { return error_; }

  // The declarations of the signals, as VCD has them.
  const std::string& header() const { return header_; }

  bool open(const std::string& name) override {
    close();
    error_.clear();
    header_.clear();
    in_header_ = true;
    descriptor_ = ::open(name.c_str(), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor_ < 0) {
      error_ = std::strerror(errno);
      return false;
    }
    if (name.size() > 4 && name.compare(name.size() - 4, 4, ".fst") == 0) {
      ::close(descriptor_);
      descriptor_ = -1;
      packer_ = std::make_unique<FstPacker>(name);
    }
    return true;
  }

  void close() override {
    if (packer_) packer_->close();
    packer_.reset();
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
  }

  // An error is kept, and what follows it thrown away: Verilator's writer would try again when it
  // is closed, and end the process.
  ssize_t write(const char* text, ssize_t size) override {
    if (in_header_) {
      header_.append(text, size);
      const std::size_t end = header_.find("$enddefinitions");
      in_header_ = end == std::string::npos;
      if (!in_header_) header_.resize(end);
    }
    if (packer_) {
      packer_->take(text, size);
    } else if (error_.empty()) {
      for (ssize_t done = 0; done < size;) {
        const ssize_t got = ::write(descriptor_, text + done, size - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
          error_ = std::strerror(errno);
          break;
        }
        done += got;
      }
    }
    return size;
  }

 private:
  int descriptor_ = -1;
  std::unique_ptr<FstPacker> packer_;
  std::string error_, header_;
  bool in_header_ = false;
};

}  // namespace
