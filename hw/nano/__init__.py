"""The firmware machine: the instruction set of :mod:`celosia.hw.contract.isa` on a small processor.

For FPGAs that the engines do not fit (docs/firmware.md). ``core.FirmwareCore`` takes the place of
registers and engines; the program that it runs is in ``firmware/``.
"""
