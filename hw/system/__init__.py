"""What surrounds the NPU on a board: its system memory and the bus between them."""
