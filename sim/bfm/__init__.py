"""Bus models for cocotb: drivers, monitors and checkers of the machine's interfaces.

The modules in here need cocotb (``pip install "celosia[dev]"``); this package itself does not.
"""
