// Waveforms of the model, with signals that name layers and commands beside those of the RTL.
//
// One value a cycle: at time n of the file is what every signal settles to in cycle n, a nanosecond
// a cycle. A file is opened in the first cycle that belongs to it, so a run that never comes so far
// leaves none. Included by harness.cpp in builds that trace.

#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "verilated_vcd_c.h"
#include "wave_file.h"

constexpr std::size_t kNameBytes = 48;

// Read by celosia.sim.rtl.rtl: the order is part of the C interface.
struct NpuTraceLayer {
  int32_t number;   // of the operator in the model
  uint32_t label;   // index of a name
  uint32_t tensor;  // index of a name
};
struct NpuTraceCommand {
  int32_t layer;   // index of a layer; -1: none
  uint32_t name;   // index of a name
  uint32_t wanted; // whether its cycles are to be seen
};

namespace {

constexpr int kTagBits = 16;
constexpr int kEngines = 64 / kTagBits;
constexpr int kNameWords = kNameBytes / 4;
constexpr uint32_t kNoNumber = 0xFFFF;

// A name as Verilog has strings in vectors: the last character lowest, zeros above the first.
struct Name {
  WData words[kNameWords] = {};
  Name() = default;
  explicit Name(const char* text) {
    const std::size_t length = strnlen(text, kNameBytes);
    for (std::size_t i = 0; i < length; ++i) {
      const std::size_t place = length - 1 - i;
      words[place / 4] |= static_cast<WData>(static_cast<uint8_t>(text[i])) << place % 4 * 8;
    }
  }
};

// What the bus did in a cycle; order of the signals in scope "bus".
constexpr const char* kBusNames[] = {"read", "write", "stalled", "answered"};

class Waves {
 public:
  explicit Waves(Vnpu& top) : top_(top) {}
  ~Waves() { close(); }

  // Write every cycle from now on.
  void start(const char* path) {
    close();
    path_ = path;
    open();
  }

  // Write the cycles from the first in which a wanted command has an engine to that in which the
  // last of them is complete. An open file of the same name goes on.
  void arm(const char* path, const char* state_names, const NpuTraceLayer* layers,
           std::size_t layer_count, const NpuTraceCommand* commands, std::size_t command_count,
           const char* names, std::size_t name_count) {
    if (path_ != path) close();
    path_ = path;
    state_names_.clear();
    for (const char* name = state_names; *name;) {
      const std::size_t length = std::strcspn(name, "\n");
      state_names_.emplace_back(name, length);
      name += length + (name[length] != 0);
    }
    layers_.assign(layers, layers + layer_count);
    commands_.assign(commands, commands + command_count);
    names_.clear();
    for (std::size_t i = 0; i < name_count; ++i) names_.emplace_back(names + i * kNameBytes);
    left_.assign(layer_count, 0);
    wanted_left_ = 0;
    for (const NpuTraceCommand& command : commands_) {
      if (command.layer >= 0) ++left_[command.layer];
      wanted_left_ += command.wanted;
    }
    owner_ = 0;
    was_ = NpuSample{0, 0, 0};
    armed_ = wanted_left_ != 0;
    writing_ = false;
    if (!started_) origin_ = kUnknown;
  }

  // The end of what `arm` began.
  void disarm() { armed_ = writing_ = false; }

  void close() {
    if (trace_) trace_->close();
    trace_.reset();
    armed_ = writing_ = started_ = false;
    path_.clear();
  }


  const char* header() const { return file_.header().c_str(); }

  // Called in every cycle, when all signals have settled.
  void cycle(const NpuSample* sample, uint64_t now, int bus) {
    if (!armed_ && !writing_) return;
    if (armed_ && origin_ == kUnknown) origin_ = now;
    if (armed_ && sample) follow(*sample);
    if (!writing_) return;
    sample_ = sample ? *sample : NpuSample{0, 0, 0};
    bus_ = bus;
    trace_->dump(now - origin_);
    if (!file_.error().empty()) {
      const std::string message = "cannot write " + path_ + ": " + file_.error();
      close();
      throw std::runtime_error(message);
    }
    if (armed_ && wanted_left_ == 0) disarm();
  }

 private:
  static constexpr uint64_t kUnknown = UINT64_MAX;

  Vnpu& top_;
  WaveFile file_;
  std::unique_ptr<VerilatedVcdC> trace_;
  std::string path_;
  std::vector<std::string> state_names_;
  std::vector<NpuTraceLayer> layers_;
  std::vector<NpuTraceCommand> commands_;
  std::vector<Name> names_;
  std::vector<uint32_t> left_;  // commands of each layer that are not complete
  uint64_t wanted_left_ = 0;    // of the wanted ones
  std::size_t owner_ = 0;       // the first layer that has one
  NpuSample was_{}, sample_{};
  uint64_t origin_ = 0;
  uint32_t code_ = 0;
  int bus_ = 0;
  bool armed_ = false, writing_ = false, started_ = false;

  void open() {
    trace_ = std::make_unique<VerilatedVcdC>(&file_);
    top_.trace(trace_.get(), 99);
    if (!state_names_.empty()) {
      auto* const writer = trace_->spTrace();
      writer->addInitCb(&declare, this, "celosia", false, codes());
      writer->addFullCb(&put<true>, 0, this);
      writer->addChgCb(&put<false>, 0, this);
    }
    trace_->set_time_unit("1ns");
    trace_->set_time_resolution("1ns");
    trace_->open(path_.c_str());
    if (!trace_->isOpen()) {
      const std::string message = "cannot write " + path_ + ": " + file_.error();
      trace_.reset();
      path_.clear();
      throw std::runtime_error(message);
    }
    started_ = writing_ = true;
  }

  static bool bit(const NpuSample& sample, int index) { return sample.state >> index & 1; }
  static uint32_t tag(const NpuSample& sample, int engine) {
    return sample.tags >> engine * kTagBits & ((1u << kTagBits) - 1);
  }
  // The lowest bits of the state are "active" of each engine, then "busy" of each.
  static bool active(const NpuSample& sample, int engine) { return bit(sample, engine); }
  static bool busy(const NpuSample& sample, int engine) { return bit(sample, kEngines + engine); }

  // Note which commands are complete; open the file if one comes that is to be seen.
  void follow(const NpuSample& sample) {
    for (int engine = 0; engine < kEngines; ++engine) {
      const uint32_t before = tag(was_, engine);
      const bool goes_on = busy(sample, engine) && tag(sample, engine) == before;
      if (busy(was_, engine) && !goes_on && before < commands_.size()) complete(before);
      const uint32_t now = tag(sample, engine);
      if (!writing_ && active(sample, engine) && now < commands_.size() && commands_[now].wanted) {
        if (started_)
          writing_ = true;
        else
          open();
      }
    }
    was_ = sample;
    while (owner_ < left_.size() && left_[owner_] == 0) ++owner_;
  }

  void complete(uint32_t tag) {
    NpuTraceCommand& command = commands_[tag];
    if (command.layer >= 0) --left_[command.layer];
    wanted_left_ -= command.wanted;
  }

  uint32_t codes() const {
    return (2 + 2 * kEngines) * kNameWords + 1 + 2 * kEngines + state_names_.size() +
           sizeof kBusNames / sizeof *kBusNames;
  }

  std::string engine_name(int engine) const {
    return state_names_[engine].substr(0, state_names_[engine].find('_'));
  }

  // The signals in the order of their codes; `visit` gets each of them, scopes have no value.
  template <typename Visitor>
  void visit(Visitor&& visitor) const {
    static const Name nothing;
    const auto name = [&](uint32_t index) -> const Name& { return names_[index]; };
    const bool owned = armed_ && owner_ < layers_.size();
    visitor.scope("celosia");
    visitor.name("layer", owned ? name(layers_[owner_].label) : nothing);
    visitor.name("tensor", owned ? name(layers_[owner_].tensor) : nothing);
    visitor.number("layer_number", owned ? layers_[owner_].number : kNoNumber);
    for (int engine = 0; engine < kEngines; ++engine) {
      const std::string prefix = engine_name(engine) + "_";
      visitor.scope(engine_name(engine).c_str());
      const bool has = active(sample_, engine);
      const uint32_t index = tag(sample_, engine);
      const bool known = has && index < commands_.size();
      const int32_t layer = known ? commands_[index].layer : -1;
      visitor.name("layer", layer >= 0 ? name(layers_[layer].label) : nothing);
      visitor.name("command", known ? name(commands_[index].name) : nothing);
      visitor.number("tag", index);
      for (std::size_t state = 0; state < state_names_.size(); ++state)
        if (state_names_[state].compare(0, prefix.size(), prefix) == 0)
          visitor.bit(state_names_[state].c_str() + prefix.size(), bit(sample_, state));
      visitor.bit("wait_tokens", has && !busy(sample_, engine));
      visitor.end();
    }
    visitor.scope("bus");
    for (std::size_t i = 0; i < sizeof kBusNames / sizeof *kBusNames; ++i)
      visitor.bit(kBusNames[i], bus_ >> i & 1);
    visitor.end();
    visitor.end();
  }

  struct Declarer {
    VerilatedVcd* file;
    uint32_t code;
    void scope(const char* name) { file->pushPrefix(name, VerilatedTracePrefixType::SCOPE_MODULE); }
    void end() { file->popPrefix(); }
    void name(const char* name, const Name&) {
      file->declWide(code, name, 8 * kNameBytes - 1, 0);
      code += kNameWords;
    }
    void number(const char* name, uint32_t) { file->declBus(code++, name, kTagBits - 1, 0); }
    void bit(const char* name, bool) { file->declBit(code++, name); }
  };

  template <bool kFull>
  struct Writer {
    VerilatedVcd::Buffer* file;
    uint32_t code;
    void scope(const char*) {}
    void end() {}
    void name(const char*, const Name& value) {
      uint32_t* const old = file->oldp(code);
      if (kFull)
        file->fullWData(old, value.words, 8 * kNameBytes);
      else
        file->chgWData(old, value.words, 8 * kNameBytes);
      code += kNameWords;
    }
    void number(const char*, uint32_t value) {
      uint32_t* const old = file->oldp(code++);
      if (kFull)
        file->fullSData(old, value, kTagBits);
      else
        file->chgSData(old, value, kTagBits);
    }
    void bit(const char*, bool value) {
      uint32_t* const old = file->oldp(code++);
      if (kFull)
        file->fullBit(old, value);
      else
        file->chgBit(old, value);
    }
  };

  static void declare(void* self, VerilatedVcd* file, uint32_t code) {
    static_cast<Waves*>(self)->code_ = code;
    static_cast<Waves*>(self)->visit(Declarer{file, code});
  }
  template <bool kFull>
  static void put(void* self, VerilatedVcd::Buffer* file) {
    const Waves& waves = *static_cast<Waves*>(self);
    waves.visit(Writer<kFull>{file, waves.code_});
  }
};

}  // namespace
