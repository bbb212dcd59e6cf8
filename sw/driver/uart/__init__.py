"""Boards on a serial line: the host's end of the protocol of ``docs/uart.md``."""
