"""The way from gateware to a bitstream: clocks, tools, places and reports."""
