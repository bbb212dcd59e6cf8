"""What is shown and written about compiled programs and runs: tables, checks, files."""
