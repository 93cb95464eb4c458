"""Weights & Biases; other Lightning loggers pass through unchanged.

`wandb_logger` creates the logger (the Hydra target) and logs test results, `wandb_runs` starts and
finishes runs, `sweep_summary` logs the summary of a sweep, `workspace` saves a dashboard. Nothing
here imports wandb before a run starts.
"""
