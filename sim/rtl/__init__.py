"""The RTL as a library: Verilator, the netlist after synthesis, and how Python drives them."""
