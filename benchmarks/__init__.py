"""Speed, and independent solvers to compare with."""
