"""The firmware: queues, tokens and every command of the machine, as a program of the processor."""
