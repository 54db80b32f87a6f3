"""The paper's numbers, its claims with their rules, and the verdicts."""
