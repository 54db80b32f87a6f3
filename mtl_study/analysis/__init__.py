"""Everything that is computed from records."""
