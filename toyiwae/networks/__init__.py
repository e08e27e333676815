"""The registry's coefficients on networks: models with a member axis, the training step, Adam."""
