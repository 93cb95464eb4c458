"""Runs to load."""

from trained_runs import data_root, make_run, run, run_copy

__all__ = ["data_root", "make_run", "run", "run_copy"]
