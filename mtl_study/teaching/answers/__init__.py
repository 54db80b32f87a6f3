"""The exercises, one file per notebook: how the right answer is computed, and the hint for each known mistake."""
