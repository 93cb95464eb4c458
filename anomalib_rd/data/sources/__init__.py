"""Data sets: each lists its images, masks and labels by category and split."""
