"""Weights & Biases, where it is used; every other Lightning logger passes through untouched.

`wandb_logger` makes the logger (the Hydra target), `evaluation` logs a test result with its
pictures, `sweep_summary` a multirun's, `workspace` says what the dashboard shows; `start` begins
and ends runs, `lifetime` closes those of loggers. But for `workspace_view`, which needs an extra,
nothing here imports wandb before a run starts.
"""
