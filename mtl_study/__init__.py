"""Do specialized multi-task optimizers (SMTOs) beat the plain sum of losses? The code behind the notebooks."""
