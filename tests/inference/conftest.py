"""Runs to load."""

from trained_runs import data_root, make_run, run, run_copy, tiny_teacher

__all__ = ["data_root", "make_run", "run", "run_copy", "tiny_teacher"]
