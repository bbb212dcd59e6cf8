"""A board without a board: NPU, UART and memory in one simulation, behind a serial line."""
