"""Run folders as a training leaves them, with made-up numbers."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd

from anomalib_rd.results.gallery import write_gallery
from anomalib_rd.results.record import write_record
from anomalib_rd.results.scored_image import ScoredImage

TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS = (
    "bottle",
    "cable",
    "capsule",
    "hazelnut",
    "metal_nut",
    "pill",
    "screw",
    "toothbrush",
    "transistor",
    "zipper",
)
METRICS = {
    "image_auroc": 0.98,
    "image_ap": 0.99,
    "image_f1max": 0.97,
    "pixel_auroc": 0.975,
    "pixel_ap": 0.6,
    "pixel_f1max": 0.61,
    "aupro": 0.93,
    "aupro_5": 0.7,
}
CONFIG = {
    "name": "run",
    "seed": 0,
    "data": {"name": "mvtec", "category": "bottle", "root": "data/mvtec"},
    "model": {
        "name": "rd4ad",
        "teacher": {"name": "resnet18", "weights": None},
        "masking": {"strategy": "none", "ratio": 0.0},
    },
    "loss": {"_target_": "anomalib_rd.training.losses.FlatCosine"},
    "optimizer": {"lr": 0.005},
    "trainer": {"max_epochs": 5, "devices": 1},
    "sweep": None,
}


def fake_result(category="bottle", seed=0, metrics=None, data="mvtec", config=None, **changes):
    """A record as the training makes it; ``config`` maps dotted keys to values."""
    settings = deepcopy(CONFIG)
    settings["seed"], settings["data"]["category"] = seed, category
    for key, value in (config or {}).items():
        *parents, last = key.split(".")
        node = settings
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return {
        "name": f"{category}-{seed}",
        "data": {
            "name": data,
            "category": category,
            "group": "texture" if category in TEXTURES else "object",
            "fingerprint": f"sha-{category}",
            "train_images": 209,
            "test_images": {"good": 20, "broken": 63},
        },
        "model": {"name": settings["model"]["name"], "teacher": "resnet18"},
        "seed": seed,
        "protocol": {
            "headline": "last epoch",
            "epochs": settings["trainer"]["max_epochs"],
            "image_size": [256, 256],
            "test_curve": False,
        },
        "metrics": {**METRICS, **(metrics or {})},
        "undefined": {},
        "oracle": None,
        "test_curve": [],
        "duration_s": {"train": 10.0, "test": 2.0, "total": 12.5},
        "images_per_s": {"train": 104.5, "test": 41.5},
        "provenance": {},
        "checkpoint": {"path": "checkpoints/last.ckpt", "sha256": "0" * 64},
        "config": settings,
        **changes,
    }


def fake_scores(category="bottle"):
    return pd.DataFrame(
        {
            "path": [f"{category}/test/good/000.png", f"{category}/test/broken/000.png"],
            "category": category,
            "defect": ["good", "broken"],
            "label": [0, 1],
            "score": [0.1, 0.9],
        }
    )


def fake_run(folder: Path, category="bottle", seed=0, **keywords) -> Path:
    """Writes a run folder and returns it."""
    result = fake_result(category, seed, **keywords)
    write_record(folder, result, fake_scores(category), {"roc": np.linspace(0, 1, 5)})
    return folder


DEFECTS = ("broken", "scratch", "stain")


def full_scores(category="bottle", seed=0, quality=2.0, good=6, each=3):
    """Scores of ``good`` normal images and ``each`` of every defect type, the better apart the
    higher the quality."""
    rng = np.random.default_rng([seed, len(category), *category.encode()])
    rows = []
    for defect, count in {"good": good, **dict.fromkeys(DEFECTS, each)}.items():
        label = int(defect != "good")
        for number in range(count):
            path = f"{category}/test/{defect}/{number:03d}.png"
            rows.append((path, category, defect, label, 0.3 + 0.1 * rng.normal(quality * label)))
    return pd.DataFrame(rows, columns=["path", "category", "defect", "label", "score"])


def fake_curves(points=40):
    """Curves with the names of a run's, made up."""
    rate = np.linspace(0, 1, points)
    high = rate**0.1
    curves = {"pro_fpr": rate, "pro": high}
    for level in ("image", "pixel"):
        curves |= {f"{level}_roc_fpr": rate, f"{level}_roc_tpr": high}
        curves |= {f"{level}_pr_recall": rate, f"{level}_pr_precision": 1 - rate**9 / 2}
        curves[f"{level}_pr_threshold"] = rate[::-1]
    return curves


def fake_gallery(folder, scores, side=48):
    """Pictures of the scored images: a lit square where the defect is."""
    rng = np.random.default_rng(0)

    def shown():
        for row, (path, label, score) in enumerate(
            zip(scores["path"], scores["label"], scores["score"], strict=True)
        ):
            image = rng.integers(90, 110, (side, side, 3), dtype=np.uint8)
            mask = np.zeros((side, side), dtype=bool)
            if label:
                top, left = rng.integers(4, side - 16, 2)
                mask[top : top + 12, left : left + 10] = True
                image[mask] = (200, 60, 40)
            heat = rng.normal(0.1, 0.02, (side // 2, side // 2)) + score * mask[::2, ::2]
            yield ScoredImage(row=row, path=path, image=image, mask=mask, anomaly_map=heat)

    return write_gallery(folder, shown(), low=0.1, high=1.0, threshold=0.4)


def full_run(
    folder: Path, category="bottle", seed=0, quality=2.0, gallery=True, **keywords
) -> Path:
    """A run with scores of several defect types, curves and, if asked for, a gallery."""
    scores = full_scores(category, seed, quality)
    folder.mkdir(parents=True, exist_ok=True)
    if gallery:
        fake_gallery(folder, scores)
    write_record(folder, fake_result(category, seed, **keywords), scores, fake_curves())
    return folder
