"""The bit-exact emulator: the commands of the machine in numpy."""
