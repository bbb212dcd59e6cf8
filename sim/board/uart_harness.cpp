// Clock loop and serial line around a Verilated design with pins rx and tx, behind a C interface.
//
// The library is loaded by celosia.sim.board.uart_rtl through ctypes. The other end of the line is a
// UART of its own here: characters are turned into bits and back at the host's rate, whatever the
// design's rate is, so that a wrong rate fails as it does on a cable. Time is in clock cycles.

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "harness.h"

namespace {
constexpr int kCharacterBits = 10;

// The clock of a memory that has its own; designs without one have no such port.
template <typename Top>
auto set_memory_clock(Top& top, int level) -> decltype(top.memory_clk, void()) {
  top.memory_clk = level;
  top.eval();
}
// The worse match for the literals that the levels are.
template <typename Top>
void set_memory_clock(Top& /*top*/, long /*level*/) {}
}  // namespace

struct Board {
  VerilatedContext context;
  std::unique_ptr<Vnpu> top;
  std::string message;
  uint64_t cycles = 0;
  double bit_cycles = 100.0;
  double memory_cycles = 1.0;  // of the memory's clock, in cycles
  double next_memory = 0.5;    // when it rises next

  // From host to design.
  std::deque<uint8_t> to_send;
  uint32_t shift = 0;
  int bits_left = 0;
  double next_bit = 0.0;  // when the bit on the line ends

  // From design to host.
  std::deque<uint8_t> received;
  int sample = -1;  // bits seen of a character; -1 between characters
  uint32_t character = 0;
  double next_sample = 0.0;
  uint64_t framing_errors = 0;
  bool line_was_low = false;

  Board() {
    top = std::make_unique<Vnpu>(&context, "npu");
    reset();
  }
  ~Board() { top->final(); }

  void reset() {
    top->rx = 1;
    top->rst = 1;
    for (int i = 0; i < kResetCycles; ++i) clock();
    top->rst = 0;
    clock();
  }

  void clock() {
    lower_clocks(*top);
    top->eval();
    raise_clocks(*top);
    top->eval();
    ++cycles;
    for (; next_memory < static_cast<double>(cycles); next_memory += memory_cycles) {
      set_memory_clock(*top, 1);
      set_memory_clock(*top, 0);
    }
  }

  void drive() {
    if (bits_left == 0) {
      if (to_send.empty()) return;
      shift = 0x200u | static_cast<uint32_t>(to_send.front()) << 1;
      to_send.pop_front();
      bits_left = kCharacterBits;
      // Right after the stop bit before, or now.
      if (next_bit < static_cast<double>(cycles) - 1.0) next_bit = static_cast<double>(cycles);
    }
    if (static_cast<double>(cycles) < next_bit) return;
    top->rx = shift & 1;
    shift >>= 1;
    next_bit += bit_cycles;
    --bits_left;
  }

  void watch() {
    const bool line = top->tx;
    if (sample < 0) {
      if (!line && !line_was_low) {
        sample = 0;
        character = 0;
        next_sample = static_cast<double>(cycles) + bit_cycles / 2;
      }
    } else if (static_cast<double>(cycles) >= next_sample) {
      next_sample += bit_cycles;
      if (sample == 0) {
        if (line) sample = -2;  // a glitch
      } else if (sample <= 8) {
        character |= static_cast<uint32_t>(line) << (sample - 1);
      } else {
        framing_errors += !line;
        received.push_back(static_cast<uint8_t>(character));
        sample = -2;
      }
      ++sample;
    }
    line_was_low = !line;
  }

  void cycle() {
    drive();
    clock();
    watch();
  }
};

extern "C" {

Board* uart_create() { return created<Board>(); }

void uart_destroy(Board* board) { delete board; }

const char* uart_message(const Board* board) { return board->message.c_str(); }

int32_t uart_reset(Board* board) {
  return guarded(board, [&] {
    board->reset();
    return kOk;
  });
}

// Length of a bit at the host's end, in clock cycles.
void uart_set_bit(Board* board, double cycles) { board->bit_cycles = cycles; }

// Period of the memory's clock, in clock cycles.
void uart_set_memory(Board* board, double cycles) { board->memory_cycles = cycles; }

void uart_send(Board* board, const uint8_t* data, uint64_t count) {
  board->to_send.insert(board->to_send.end(), data, data + count);
}

// Run until `wanted` characters are there or `max_cycles` are over.
int32_t uart_run(Board* board, uint64_t max_cycles, uint64_t wanted) {
  return guarded(board, [&] {
    for (uint64_t i = 0; i < max_cycles && board->received.size() < wanted; ++i) board->cycle();
    return kOk;
  });
}

uint64_t uart_receive(Board* board, uint8_t* data, uint64_t room) {
  uint64_t count = 0;
  for (; count < room && !board->received.empty(); ++count) {
    data[count] = board->received.front();
    board->received.pop_front();
  }
  return count;
}

uint64_t uart_received(const Board* board) { return board->received.size(); }
uint64_t uart_unsent(const Board* board) { return board->to_send.size(); }
uint64_t uart_cycles(const Board* board) { return board->cycles; }
uint64_t uart_framing_errors(const Board* board) { return board->framing_errors; }
}
