"""A sweep with made-up numbers and images, to measure reports."""

import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from anomalib_rd.results.gallery import GALLERY, write_gallery
from anomalib_rd.results.record import write_record
from anomalib_rd.results.scored_image import ScoredImage

SIDE = 256  # pixels
GOOD, DEFECTS, EACH = 20, ("broken", "crack", "hole", "scratch", "stain"), 12
POINTS = 1000  # of each curve


def make_sweep(folder: Path, categories: int, seeds: int, variants: int) -> int:
    """Write complete runs with galleries of all test images; returns the number of runs."""
    for number, variant in product(range(categories), range(variants)):
        category = f"category_{number:02d}"
        runs = [folder / category / f"variant{variant}-s{seed}" for seed in range(seeds)]
        rng = np.random.default_rng([number, variant])
        scores = _scores(category, rng)
        for seed, run in enumerate(runs):
            run.mkdir(parents=True)
            if seed == 0:
                write_gallery(run, _images(scores, rng), low=0.0, high=1.0, threshold=0.5)
            else:  # drawing is slow: the seeds share the images, as separate files
                shutil.copyfile(runs[0] / GALLERY, run / GALLERY)
            noisy = scores.assign(score=scores["score"] + rng.normal(0, 0.02, len(scores)))
            write_record(run, _result(category, variant, seed, rng), noisy, _curves(rng))
    return categories * seeds * variants


def _scores(category: str, rng: np.random.Generator) -> pd.DataFrame:
    rows = [
        (f"{category}/test/{defect}/{number:03d}.png", category, defect, int(defect != "good"))
        for defect, count in {"good": GOOD, **dict.fromkeys(DEFECTS, EACH)}.items()
        for number in range(count)
    ]
    table = pd.DataFrame(rows, columns=["path", "category", "defect", "label"])
    return table.assign(score=rng.normal(0.3 + 0.2 * table["label"], 0.1))


def _images(scores: pd.DataFrame, rng: np.random.Generator) -> Iterator[ScoredImage]:
    """Images of grain and clouds, with about the bytes of photographs (13 kB) and maps (3 kB)."""
    clouds = gaussian_filter(rng.normal(size=(SIDE, SIDE, 3)), (9, 9, 0)) * 600
    for row, (path, label) in enumerate(zip(scores["path"], scores["label"], strict=True)):
        grain = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1) * 50
        image = np.clip(120 + clouds + grain[..., None], 0, 255).astype(np.uint8)
        mask = np.zeros((SIDE, SIDE), dtype=bool)
        if label:
            top, left = rng.integers(20, SIDE - 80, 2)
            mask[top : top + 40, left : left + 60] = True
        noise = gaussian_filter(rng.normal(0.2, 0.9, (SIDE, SIDE)), 4)
        heat = gaussian_filter(mask.astype(float), 8) + noise
        yield ScoredImage(row=row, path=path, image=image, mask=mask, anomaly_map=heat)


def _curves(rng: np.random.Generator) -> dict[str, np.ndarray]:
    rate = np.sort(rng.random(POINTS))
    curves = {"pro_fpr": rate, "pro": rate**0.2}
    for level in ("image", "pixel"):
        curves |= {f"{level}_roc_fpr": rate, f"{level}_roc_tpr": rate**0.1}
        curves |= {f"{level}_pr_recall": rate, f"{level}_pr_precision": 1 - rate**8 / 2}
    return curves


def _result(category: str, variant: int, seed: int, rng: np.random.Generator) -> dict[str, Any]:
    names = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max")
    metrics = {name: 0.9 + 0.1 * rng.random() for name in (*names, "aupro", "aupro_5")}
    masking = {"strategy": "random" if variant else "none", "ratio": variant / 10}
    settings = {f"key_{number}": {"value": number, "name": "x" * 20} for number in range(60)}
    return {
        "name": f"{category}-{variant}-{seed}",
        "data": {"name": "made-up", "category": category, "group": "object"},
        "model": {"name": "fmg_rd" if variant else "rd4ad", "teacher": "resnet18"},
        "seed": seed,
        "protocol": {"headline": "last epoch", "epochs": 200, "image_size": [SIDE, SIDE]},
        "metrics": metrics,
        "undefined": {},
        "oracle": {"epoch": 150, **metrics},
        "test_curve": [{"epoch": epoch, **metrics} for epoch in range(10, 201, 10)],
        "loss_curve": rng.random(200),
        "duration_s": {"train": 600.0, "test": 9.0, "total": 612.0},
        "images_per_s": {"train": 80.0, "test": 12.0},
        "provenance": {"software": {}, "hardware": {}},
        "config": {"seed": seed, "model": {"masking": masking}, "settings": settings},
    }
