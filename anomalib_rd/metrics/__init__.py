"""Exact detection and localisation metrics: functions (`functional`) and torchmetrics pairs."""

from anomalib_rd.metrics.metric import ImageMetrics, PixelMetrics, ProRD4AD

__all__ = ["ImageMetrics", "PixelMetrics", "ProRD4AD"]
