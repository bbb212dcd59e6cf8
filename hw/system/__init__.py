"""What is around the NPU on a board: system memory and how it is shared."""
