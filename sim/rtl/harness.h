// What the clock loops around a Verilated model share. Included by one source file of a library.
//
// CELOSIA_GATES(X) lists clocks that may stand still, as X(name): one rises with the others if its
// enable has settled high.

#pragma once

#include <cstdint>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>

#include "Vnpu.h"
#include "verilated.h"

// Verilator's own handler aborts the process; ours turns the message into an error code.
void vl_fatal(const char* file, int line, const char*, const char* message) {
  throw std::runtime_error(std::string(file ? file : "?") + ":" + std::to_string(line) + ": " +
                           (message ? message : "fatal error"));
}

namespace {

enum Status : int32_t { kOk = 0, kTimeOut = 1, kBusError = 2, kFatal = 3 };

constexpr int kResetCycles = 4;

// The model is to be evaluated behind each of these.
void lower_clocks(Vnpu& top) {
  top.clk = 0;
#define CELOSIA_LOW(gate) top.clk_##gate = 0;
  CELOSIA_GATES(CELOSIA_LOW)
#undef CELOSIA_LOW
}

void raise_clocks(Vnpu& top) {
  top.clk = 1;
#define CELOSIA_HIGH(gate) top.clk_##gate = top.enable_##gate;
  CELOSIA_GATES(CELOSIA_HIGH)
#undef CELOSIA_HIGH
}

// Make an instance; null, and a line on standard error, when the model cannot be set up.
template <typename Instance, typename... Arguments>
Instance* created(Arguments... arguments) {
  try {
    return new Instance(arguments...);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "celosia: %s\n", error.what());
    return nullptr;
  }
}

// Run `body`; a fatal error of the model becomes kFatal, its text is kept in the instance.
template <typename Instance, typename Body>
int32_t guarded(Instance* instance, Body body) {
  try {
    return body();
  } catch (const std::exception& error) {
    instance->message = error.what();
    return kFatal;
  }
}

}  // namespace
