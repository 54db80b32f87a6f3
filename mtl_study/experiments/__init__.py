"""Configurations and records, training, and getting many runs done as the paper did them."""
