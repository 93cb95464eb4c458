"""Weights & Biases; other Lightning loggers need no code here.

`wandb_logger` creates the logger (the Hydra target) and logs test results, `wandb_runs` starts and
finishes runs, `sweep_summary` logs the summary of a sweep, `workspace` saves a dashboard. wandb is
imported when a run starts.
"""
