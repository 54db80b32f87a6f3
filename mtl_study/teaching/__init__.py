"""Exercises, losses small enough to be drawn, and checks of the propositions."""
