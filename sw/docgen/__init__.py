"""Pages of docs/ and the C header, generated from the contract."""
