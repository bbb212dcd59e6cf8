"""The NPU as plain Verilog, with a testbench, for other tools."""
