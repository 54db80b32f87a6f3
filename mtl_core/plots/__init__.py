"""Every figure and table: one look for all (look.py), then one file per section of the paper."""
