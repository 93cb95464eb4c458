"""How many images the published datasets hold, to tell an incomplete copy from a whole one.

Sources. MVTec AD: Bergmann et al., CVPR 2019, table 1. VisA: the authors' README and
``split_csv/1cls.csv``, https://github.com/amazon-science/spot-diff. MVTec AD 2: Heckler-Kram et
al., arXiv 2503.21622. MPDD and MVTec LOCO AD: the authors' archives, as several of their users
counted them alike; BTAD's: as one did, its totals as two did. BTAD's archive holds 1799 + 741
images, while its paper says 2830; LOCO's 1778 + 305 + 1568, while its paper says 1772 + 304 + 1568.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from anomalib_rd.data.layout import WithValidation
from anomalib_rd.data.source import Source, Split


@dataclass(frozen=True)
class Counts:
    """Images of a category: normal ones to train on, normal and defect ones to test on."""

    train: int
    good: int
    defect: int


# Normal images to train on, normal test images, defect images; in LOCO and AD 2 first of all the
# normal images of the validation folder.
_MVTEC_AD = {
    "bottle": (209, 20, 63),
    "cable": (224, 58, 92),
    "capsule": (219, 23, 109),
    "carpet": (280, 28, 89),
    "grid": (264, 21, 57),
    "hazelnut": (391, 40, 70),
    "leather": (245, 32, 92),
    "metal_nut": (220, 22, 93),
    "pill": (267, 26, 141),
    "screw": (320, 41, 119),
    "tile": (230, 33, 84),
    "toothbrush": (60, 12, 30),
    "transistor": (213, 60, 40),
    "wood": (247, 19, 60),
    "zipper": (240, 32, 119),
}
_VISA = {
    "candle": (900, 100, 100),
    "capsules": (542, 60, 100),
    "cashew": (450, 50, 100),
    "chewinggum": (453, 50, 100),
    "fryum": (450, 50, 100),
    "macaroni1": (900, 100, 100),
    "macaroni2": (900, 100, 100),
    "pcb1": (904, 100, 100),
    "pcb2": (901, 100, 100),
    "pcb3": (905, 101, 100),
    "pcb4": (904, 101, 100),
    "pipe_fryum": (450, 50, 100),
}
_BTAD = {"01": (400, 21, 49), "02": (399, 30, 200), "03": (1000, 400, 41)}
_MPDD = {
    "bracket_black": (289, 32, 47),
    "bracket_brown": (185, 26, 51),
    "bracket_white": (110, 30, 30),
    "connector": (128, 30, 14),
    "metal_plate": (54, 26, 71),
    "tubes": (122, 32, 69),
}
_LOCO = {
    "breakfast_box": (62, 351, 102, 83 + 90),
    "juice_bottle": (54, 335, 94, 142 + 94),
    "pushpins": (69, 372, 138, 91 + 81),
    "screw_bag": (60, 360, 122, 137 + 82),
    "splicing_connectors": (60, 360, 119, 108 + 85),
}
_MVTEC_AD_2 = {
    "can": (46, 412, 72, 90),
    "fabric": (43, 387, 66, 90),
    "fruit_jelly": (37, 263, 20, 60),
    "rice": (35, 313, 42, 90),
    "sheet_metal": (19, 137, 24, 90),
    "vial": (41, 291, 35, 105),
    "wallplugs": (33, 293, 60, 90),
    "walnuts": (48, 432, 60, 90),
}
# By the name of the class itself: a class derived from it holds other images.
_PLAIN = {"MVTecAD": _MVTEC_AD, "VisA": _VISA, "BTAD": _BTAD, "MPDD": _MPDD}
_WITH_VALIDATION = {"MVTecLOCO": _LOCO, "MVTecAD2": _MVTEC_AD_2}


def published_counts(source: Source) -> Mapping[str, Counts]:
    """For each category of the published dataset what it holds; nothing for one's own images."""
    name = type(source).__name__
    if isinstance(source, WithValidation):
        table = _WITH_VALIDATION.get(name, {})
        extra = int(source.train_on_validation)
        return {
            category: Counts(train + extra * validation, good, defect)
            for category, (validation, train, good, defect) in table.items()
        }
    return {category: Counts(*counts) for category, counts in _PLAIN.get(name, {}).items()}


def counts_of(split: Split) -> Counts:
    """What is on disk."""
    defect = sum(sample.label for sample in split.test)
    return Counts(len(split.train), len(split.test) - defect, defect)
