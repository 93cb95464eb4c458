"""Exact metrics: `ranking` in NumPy alone; `functional`, `pro_rd4ad`, `streaming` on tensors."""
