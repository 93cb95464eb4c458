"""Weights & Biases; other Lightning loggers pass through unchanged.

`wandb_logger` creates the logger (the Hydra target), starts and ends its runs, and logs test
results. `sweep_summary` logs the summary of a sweep, `workspace` saves a dashboard. Nothing here
imports wandb before a run starts.
"""
