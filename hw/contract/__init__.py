"""What hardware and software agree on: configuration, commands, registers. No Amaranth."""
