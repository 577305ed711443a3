"""kilter aligns language models with preferences."""
