"""Networks in plain torch: teacher, masking, fusion, student, and the distiller of all four."""

from anomalib_rd.networks.distiller import DistillationOutput, Distiller
from anomalib_rd.networks.fusion import Fusion
from anomalib_rd.networks.losses import FlattenedCosine, HardCosine, PixelCosine
from anomalib_rd.networks.masking import FeatureMasking, NoMasking
from anomalib_rd.networks.student import Student
from anomalib_rd.networks.teacher import Teacher

__all__ = [
    "DistillationOutput",
    "Distiller",
    "FeatureMasking",
    "FlattenedCosine",
    "Fusion",
    "HardCosine",
    "NoMasking",
    "PixelCosine",
    "Student",
    "Teacher",
]
