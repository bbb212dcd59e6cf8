// Clock loop, system memory and register access around the Verilated NPU, behind a C interface.
//
// The library is loaded by celosia.sim.rtl.rtl through ctypes. Every function takes the handle that
// npu_create returned; instances share nothing, so a process may have several.
//
// A clock cycle is two evaluations: inputs are applied with the clock low and settle, the outputs
// of that cycle are sampled, then the rising edge is evaluated. Combinational paths from the bus
// inputs to the bus outputs are therefore followed as hardware would.

#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "harness.h"
#ifdef CELOSIA_ACTIVITY
#include "verilated_saif_c.h"
#endif

// Ports are bus__adr and so on in Verilog; Verilator spells the second underscore so.
#define BUS(port) bus___05F##port
#define CSR(port) csr___05F##port
#define TRACE(port) trace___05F##port

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "bus words are copied as bytes");

namespace {

constexpr std::size_t kBusBytes = sizeof(static_cast<Vnpu*>(nullptr)->BUS(dat_w));
static_assert(kBusBytes == 4 || kBusBytes == 8 || kBusBytes == 16, "bus of 32, 64 or 128 bits");
constexpr uint32_t kAllBytes = (1u << kBusBytes) - 1;

constexpr std::size_t kPendingLimit = 4096;  // a power of two

struct Answer {
  uint64_t due;  // first cycle in which it may be given
  bool error;
  uint8_t data[kBusBytes];
};

struct MemoryModel {
  uint64_t latency = 8;          // cycles from acceptance to answer, at least 1
  uint64_t interval = 1;         // cycles from one acceptance to the next, at least 1
  uint32_t stall_threshold = 0;  // probability times 2^32 - 1 of refusing requests in a cycle
  uint32_t delay_threshold = 0;  // the same of holding an answer back in a cycle
  uint64_t random = 1;           // xorshift64 state, never 0
  uint64_t error_first = 0;      // byte addresses answered with err: first ...
  uint64_t error_last = 0;       // ... to one before last; empty when equal
  uint64_t window_first = 0;     // byte addresses that exist
  uint64_t window_last = 0;
  bool dead = false;  // accepts requests and never answers
};

}  // namespace

// Equal cycles that follow one another. Read by celosia.sim.rtl.rtl: the order is part of the C
// interface.
struct NpuSample {
  uint64_t tags;
  uint32_t state;
  uint32_t cycles;
};

namespace {

// Small components that are simulated by themselves have no trace port.
template <typename Top>
auto read_trace(const Top& top, NpuSample& sample, int) -> decltype(top.TRACE(tags), bool()) {
  sample.tags = top.TRACE(tags);
  sample.state = top.TRACE(state);
  return true;
}
template <typename Top>
bool read_trace(const Top&, NpuSample&, long) {
  return false;
}

}  // namespace

#ifdef CELOSIA_TRACE
#include "waves.h"
#endif

// Read by celosia.sim.rtl.rtl: the order is part of the C interface.
struct NpuStatistics {
  uint64_t cycles;
  uint64_t words_read;
  uint64_t words_written;
  uint64_t stalled;     // cycles in which a request was refused
  uint64_t errors;      // requests answered with err
  uint64_t discarded;   // answers dropped because cyc fell
  uint64_t violations;  // requests changed or withdrawn while stalled and cyc held
  uint64_t in_flight;   // requests not answered yet
};

struct Npu {
  VerilatedContext context;
  std::unique_ptr<Vnpu> top;
  uint8_t* memory;
  uint64_t memory_bytes;
  MemoryModel model;
  NpuStatistics statistics{};
  std::vector<Answer> pending{kPendingLimit};
  uint64_t pending_head = 0, pending_tail = 0;
  bool stall = false;
  uint64_t accepts_from = 0;  // first cycle in which the next request is accepted
  bool stalled_request = false;
  uint64_t stalled_adr = 0;
  bool stalled_we = false;
  std::string message;
  std::vector<NpuSample> profile;
#ifdef CELOSIA_TRACE
  std::unique_ptr<Waves> waves;
#endif
#ifdef CELOSIA_ACTIVITY
  std::unique_ptr<VerilatedSaifC> activity;
#endif

  Npu(uint8_t* memory, uint64_t memory_bytes) : memory(memory), memory_bytes(memory_bytes) {
    model.window_last = memory_bytes;
#if defined(CELOSIA_TRACE) || defined(CELOSIA_ACTIVITY)
    context.traceEverOn(true);
#endif
    top = std::make_unique<Vnpu>(&context, "npu");
#ifdef CELOSIA_TRACE
    waves = std::make_unique<Waves>(*top);
#endif
    reset();
  }

  ~Npu() {
#ifdef CELOSIA_TRACE
    waves.reset();
#endif
#ifdef CELOSIA_ACTIVITY
    if (activity) activity->close();
#endif
    top->final();
  }

  bool chance(uint32_t threshold) {
    if (threshold == 0) return false;
    model.random ^= model.random << 13;
    model.random ^= model.random >> 7;
    model.random ^= model.random << 17;
    return static_cast<uint32_t>(model.random >> 32) < threshold;
  }

  // Apply the inputs of this cycle, let them settle, take the bus request if there is one.
  void settle() {
    const uint64_t now = statistics.cycles;
    stall = pending_tail - pending_head == kPendingLimit || now < accepts_from ||
            chance(model.stall_threshold);
    top->BUS(stall) = stall;
    top->BUS(ack) = 0;
    top->BUS(err) = 0;
    if (pending_head != pending_tail) {
      const Answer& answer = pending[pending_head % kPendingLimit];
      if (now >= answer.due && !chance(model.delay_threshold)) {
        top->BUS(ack) = !answer.error;
        top->BUS(err) = answer.error;
        std::memcpy(&top->BUS(dat_r), answer.data, kBusBytes);
        ++pending_head;
      }
    }
    lower_clocks(*top);
    top->eval();
#ifdef CELOSIA_TRACE
    NpuSample sample{0, 0, 1};
    const bool asks = top->BUS(cyc) && top->BUS(stb);
    waves->cycle(read_trace(*top, sample, 0) ? &sample : nullptr, now,
                 (asks && !stall && !top->BUS(we)) | (asks && !stall && top->BUS(we)) << 1 |
                     (asks && stall) << 2 | (top->BUS(ack) || top->BUS(err)) << 3);
#endif
#ifdef CELOSIA_ACTIVITY
    // Once a cycle, when all has settled: a change is one from cycle to cycle, without glitches,
    // and the time for which a bit is high is the number of cycles.
    if (activity) activity->dump(now);
#endif
    if (top->BUS(cyc)) {
      if (top->BUS(stb)) {
        request();
      } else {
        statistics.violations += stalled_request;
        stalled_request = false;
      }
    } else {
      statistics.discarded += pending_tail - pending_head;
      pending_head = pending_tail;
      stalled_request = false;
    }
  }

  void request() {
    if (stalled_request)
      statistics.violations += stalled_adr != top->BUS(adr) || stalled_we != top->BUS(we);
    stalled_request = stall;
    if (stall) {
      stalled_adr = top->BUS(adr);
      stalled_we = top->BUS(we);
      ++statistics.stalled;
      return;
    }
    accepts_from = statistics.cycles + model.interval;
    const uint64_t address = static_cast<uint64_t>(top->BUS(adr)) * kBusBytes;
    const bool error =
        address < model.window_first || address + kBusBytes > model.window_last ||
        (address < model.error_last && address + kBusBytes > model.error_first);
    Answer answer;
    answer.due = statistics.cycles + model.latency;
    answer.error = error;
    if (error) {
      std::memset(answer.data, 0xEE, kBusBytes);  // never looks like data
      ++statistics.errors;
    } else if (top->BUS(we)) {
      write(address);
      std::memset(answer.data, 0xEE, kBusBytes);
      ++statistics.words_written;
    } else {
      std::memcpy(answer.data, memory + address, kBusBytes);
      ++statistics.words_read;
    }
    if (!model.dead) pending[pending_tail++ % kPendingLimit] = answer;
  }

  void write(uint64_t address) {
    const uint32_t select = top->BUS(sel);
    const auto* data = reinterpret_cast<const uint8_t*>(&top->BUS(dat_w));
    if (select == kAllBytes) {
      std::memcpy(memory + address, data, kBusBytes);
      return;
    }
    for (std::size_t lane = 0; lane < kBusBytes; ++lane)
      if (select >> lane & 1) memory[address + lane] = data[lane];
  }

  void edge() {
    raise_clocks(*top);
    top->eval();
    ++statistics.cycles;
  }

  void cycle() {
    settle();
    edge();
  }

  // One cycle, with what the engines did in it appended to the profile.
  void sampled_cycle() {
    settle();
    NpuSample sample{0, 0, 1};
    if (!read_trace(*top, sample, 0)) throw std::runtime_error("the model has no trace port");
    if (!profile.empty() && profile.back().tags == sample.tags &&
        profile.back().state == sample.state && profile.back().cycles != UINT32_MAX)
      ++profile.back().cycles;
    else
      profile.push_back(sample);
    edge();
  }

  void reset() {
    top->CSR(cyc) = 0;
    top->CSR(stb) = 0;
    top->CSR(we) = 0;
    pending_head = pending_tail;
    stalled_request = false;
    top->rst = 1;
    for (int i = 0; i < kResetCycles; ++i) cycle();
    top->rst = 0;
    cycle();
  }

  // One pipelined Wishbone access: the request is held until it is not stalled, then the answer is
  // awaited. A target that acknowledges in the cycle of the request is served as well.
  Status csr(uint32_t word, bool write, uint32_t& value, uint64_t max_cycles) {
    top->CSR(adr) = word;
    top->CSR(dat_w) = write ? value : 0;
    top->CSR(sel) = 0xF;
    top->CSR(we) = write;
    top->CSR(cyc) = 1;
    top->CSR(stb) = 1;
    Status status = kTimeOut;
    for (uint64_t i = 0; i < max_cycles && status == kTimeOut; ++i) {
      settle();
      const bool accepted = top->CSR(stb) && !top->CSR(stall);
      if (top->CSR(ack)) {
        status = kOk;
        value = top->CSR(dat_r);
      } else if (top->CSR(err)) {
        status = kBusError;
      }
      edge();
      if (accepted) top->CSR(stb) = 0;
    }
    top->CSR(cyc) = 0;
    top->CSR(stb) = 0;
    top->CSR(we) = 0;
    cycle();  // one idle cycle, so that accesses never run into one another
    return status;
  }
};

extern "C" {

uint32_t npu_bus_bytes() { return kBusBytes; }

// `memory` belongs to the caller and must outlive the instance. Returns null when the model cannot
// be set up.
Npu* npu_create(uint8_t* memory, uint64_t memory_bytes) {
  return created<Npu>(memory, memory_bytes);
}

void npu_destroy(Npu* npu) { delete npu; }

const char* npu_message(const Npu* npu) { return npu->message.c_str(); }

int32_t npu_reset(Npu* npu) {
  return guarded(npu, [&] {
    npu->reset();
    return kOk;
  });
}

int32_t npu_csr_read(Npu* npu, uint32_t word, uint32_t* value, uint64_t max_cycles) {
  return guarded(npu, [&] { return npu->csr(word, false, *value, max_cycles); });
}

int32_t npu_csr_write(Npu* npu, uint32_t word, uint32_t value, uint64_t max_cycles) {
  return guarded(npu, [&] { return npu->csr(word, true, value, max_cycles); });
}

int32_t npu_step(Npu* npu, uint64_t cycles) {
  return guarded(npu, [&] {
    for (uint64_t i = 0; i < cycles; ++i) npu->cycle();
    return kOk;
  });
}

// Run until the interrupt is high. kTimeOut after max_cycles without it; `cycles` is what was run.
int32_t npu_run_until_irq(Npu* npu, uint64_t max_cycles, uint64_t* cycles) {
  const uint64_t start = npu->statistics.cycles;
  const int32_t status = guarded(npu, [&] {
    for (uint64_t i = 0; i < max_cycles && !npu->top->irq; ++i) npu->cycle();
    return npu->top->irq ? kOk : kTimeOut;
  });
  *cycles = npu->statistics.cycles - start;
  return status;
}

// As npu_run_until_irq, at a lower speed, and keeps what the engines did until the next call.
int32_t npu_profile_until_irq(Npu* npu, uint64_t max_cycles, uint64_t* cycles) {
  const uint64_t start = npu->statistics.cycles;
  npu->profile.clear();
  const int32_t status = guarded(npu, [&] {
    for (uint64_t i = 0; i < max_cycles && !npu->top->irq; ++i) npu->sampled_cycle();
    return npu->top->irq ? kOk : kTimeOut;
  });
  *cycles = npu->statistics.cycles - start;
  return status;
}

uint64_t npu_profile_length(const Npu* npu) { return npu->profile.size(); }

void npu_profile_copy(const Npu* npu, NpuSample* samples) {
  if (!npu->profile.empty())
    std::memcpy(samples, npu->profile.data(), npu->profile.size() * sizeof(NpuSample));
}

int32_t npu_irq(const Npu* npu) { return npu->top->irq; }

// Probabilities come as probability * (2^32 - 1); seed 0 keeps the generator's state.
void npu_set_memory_model(Npu* npu, uint64_t latency, uint64_t interval, uint32_t stall_threshold,
                          uint32_t delay_threshold, uint64_t seed, uint64_t error_first,
                          uint64_t error_last, uint64_t window_first, uint64_t window_last,
                          int32_t dead) {
  MemoryModel& model = npu->model;
  model.latency = latency ? latency : 1;
  model.interval = interval ? interval : 1;
  model.stall_threshold = stall_threshold;
  model.delay_threshold = delay_threshold;
  if (seed) model.random = seed;
  model.error_first = error_first;
  model.error_last = error_last;
  model.window_first = window_first;
  model.window_last = window_last < npu->memory_bytes ? window_last : npu->memory_bytes;
  model.dead = dead != 0;
}

void npu_statistics(const Npu* npu, NpuStatistics* statistics) {
  *statistics = npu->statistics;
  statistics->in_flight = npu->pending_tail - npu->pending_head;
}

// Start (path) or stop (null) to write every cycle to a file; kFatal in a build without tracing.
int32_t npu_trace(Npu* npu, const char* path) {
#ifdef CELOSIA_TRACE
  return guarded(npu, [&] {
    if (path)
      npu->waves->start(path);
    else
      npu->waves->close();
    return kOk;
  });
#else
  (void)path;
  npu->message = "the model was built without tracing";
  return kFatal;
#endif
}

#ifdef CELOSIA_TRACE
// Write the cycles of some commands; see class Waves. `names` has kNameBytes bytes a name.
int32_t npu_trace_commands(Npu* npu, const char* path, const char* state_names,
                           const NpuTraceLayer* layers, uint64_t layer_count,
                           const NpuTraceCommand* commands, uint64_t command_count,
                           const char* names, uint64_t name_count) {
  return guarded(npu, [&] {
    npu->waves->arm(path, state_names, layers, layer_count, commands, command_count, names,
                    name_count);
    return kOk;
  });
}

void npu_trace_pause(Npu* npu) { npu->waves->disarm(); }

// The declarations of the signals of the last file, as VCD has them.
const char* npu_trace_header(const Npu* npu) { return npu->waves->header(); }
#endif

// Count from now on (path), or stop and write what was counted to that path as SAIF (null); kFatal
// in a build that cannot.
int32_t npu_activity(Npu* npu, const char* path) {
#ifdef CELOSIA_ACTIVITY
  return guarded(npu, [&] {
    if (npu->activity) npu->activity->close();
    npu->activity.reset();
    if (path) {
      npu->activity = std::make_unique<VerilatedSaifC>();
      npu->top->trace(npu->activity.get(), 99);
      npu->activity->open(path);
      if (!npu->activity->isOpen()) throw std::runtime_error(std::string("cannot write ") + path);
    }
    return kOk;
  });
#else
  (void)path;
  npu->message = "the model was built without toggle counts";
  return kFatal;
#endif
}
}
