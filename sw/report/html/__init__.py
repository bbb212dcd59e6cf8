"""The page that shows an inference: its figures as one object, and what draws them."""
