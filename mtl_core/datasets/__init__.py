"""Datasets: each problem has an embedded source that needs nothing but the Python packages, and the paper's full
source."""
