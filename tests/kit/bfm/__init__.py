"""Bus models for cocotb: drivers, monitors and checkers of the machine's interfaces."""
