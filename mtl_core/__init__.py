"""Multi-task learning to take along: specialized multi-task optimizers (SMTOs), the step, models, datasets."""

__version__ = "0.1.0"
