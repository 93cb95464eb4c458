"""Measurements beside plain references, in one process, so that ratios mean something."""
