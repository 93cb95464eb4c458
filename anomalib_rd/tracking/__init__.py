"""Weights & Biases, where it is used; every other Lightning logger passes through untouched.

`wandb_logger` makes the logger (the Hydra target), `evaluation` logs a test result with its
pictures, `lifetime` closes runs. Nothing here imports wandb before a run starts.
"""
