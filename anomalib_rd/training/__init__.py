"""Training with Lightning: a run from its config to its record."""
