"""Where tensors and work go: layouts, mappings on the array, tiles, addresses."""
