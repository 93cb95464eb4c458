"""Made-up runs with curves and galleries, for figures."""

import numpy as np
import pandas as pd
from fake_runs import fake_result

from anomalib_rd.results.gallery import write_gallery
from anomalib_rd.results.record import write_record
from anomalib_rd.results.scored_image import ScoredImage


def curves(rng, masks=True):
    fpr = np.sort(np.concatenate([[0, 1], rng.random(60)]))
    rising = fpr ** rng.uniform(0.05, 0.3)
    made = {}
    for prefix in ("image", "pixel"):
        kept = fpr if masks or prefix == "image" else fpr[:0]
        height = rising[: len(kept)]
        made |= {f"{prefix}_roc_fpr": kept, f"{prefix}_roc_tpr": height}
        made |= {f"{prefix}_pr_recall": kept, f"{prefix}_pr_precision": 1 - 0.4 * kept**3}
        made |= {f"{prefix}_pr_threshold": kept[::-1]}
    return made | {"pro_fpr": made["pixel_roc_fpr"], "pro": made["pixel_roc_tpr"]}


def images(category, masks=True, side=64):
    """Two normal images and three defects: scores, and what the gallery shows."""
    rows, shown = [], []
    for row, (defect, score) in enumerate(
        [("good", 0.1), ("good", 0.5), ("crack", 0.3), ("crack", 0.9), ("hole", 0.6)]
    ):
        path = f"{category}/test/{defect}/{row:03}.png"
        truth = np.zeros((side, side), bool)
        if defect != "good":
            truth[10:30, 20 + row : 50] = True
        picture = np.full((side, side, 3), 90 + 20 * row, np.uint8)
        picture[truth] = (200, 60, 40)
        heat = truth * score + np.linspace(0, 0.3, side)
        rows.append((path, category, defect, int(defect != "good"), score))
        known = masks or defect == "good"
        shown.append(
            ScoredImage(
                row=row, path=path, image=picture, mask=truth if known else None, anomaly_map=heat
            )
        )
    columns = ["path", "category", "defect", "label", "score"]
    return pd.DataFrame(rows, columns=columns), shown


def drawn_run(folder, category, seed=0, gallery=True, masks=True, **keywords):
    """A run's folder with curves that are curves, and a gallery."""
    rng = np.random.default_rng([seed, *category.encode()])
    scores, shown = images(category, masks)
    result = fake_result(category, seed, **keywords)
    for name, value in result["metrics"].items():
        result["metrics"][name] = min(1.0, value + rng.normal(0, 0.008))
    if not masks:
        for name in result["metrics"]:
            if not name.startswith("image"):
                result["metrics"][name] = np.nan
                result["undefined"][name] = "3 of 3 defect images have no ground-truth mask"
    write_record(folder, result, scores, curves(rng, masks))
    if gallery:
        write_gallery(folder, shown, 0.1, 1.0, 0.5)
    return folder
