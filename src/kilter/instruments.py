"""Commands that work on tables: without a model of settings, and without PyTorch."""
