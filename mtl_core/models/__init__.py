"""Encoders and heads of the paper's problems."""
