"""Exact metrics: `ranking` on NumPy arrays; `functional`, `pro_rd4ad`, `streaming` on tensors."""
