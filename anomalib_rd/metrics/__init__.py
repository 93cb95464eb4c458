"""Detection and localisation metrics: functions (`functional`) and torchmetrics pairs."""

from anomalib_rd.metrics.metric import ImageMetrics, PixelMetrics, ProRD4AD
from anomalib_rd.metrics.streaming import StreamedPixelMetrics

__all__ = ["ImageMetrics", "PixelMetrics", "ProRD4AD", "StreamedPixelMetrics"]
