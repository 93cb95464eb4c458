"""Plain torch networks: teacher, masking, fusion, student, and the distiller that joins them."""

from anomalib_rd.networks.distiller import Distilled, Distiller
from anomalib_rd.networks.fusion import Fusion
from anomalib_rd.networks.losses import FlattenedCosine, HardCosine, PixelCosine
from anomalib_rd.networks.masking import FeatureMasking, NoMasking
from anomalib_rd.networks.student import Student
from anomalib_rd.networks.teacher import Teacher

__all__ = [
    "Distilled",
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
