"""Fixed-point arithmetic of the reference: multipliers, exact ones, tables."""
