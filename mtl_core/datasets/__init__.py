"""Datasets: each problem has an embedded source, which needs only the Python packages, and the paper's full source."""
