"""What several tests build: one file for each purpose. Tests import from here, never each other."""
