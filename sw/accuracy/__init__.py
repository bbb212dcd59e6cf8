"""How well a model answers labelled samples: inputs from folders, labels, figures, processes."""
