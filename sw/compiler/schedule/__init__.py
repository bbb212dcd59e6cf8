"""Commands in order: transfers, convolutions, vector work, and the tokens between engines."""
