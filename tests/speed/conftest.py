"""A tiny teacher for the measured runs."""

from trained_runs import tiny_teacher

__all__ = ["tiny_teacher"]
