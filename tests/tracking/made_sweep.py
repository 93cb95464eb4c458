"""A sweep as its runs leave it, and its summary run's tables."""

import json

import numpy as np
from fake_runs import fake_run

from anomalib_rd.reports.heatmaps import write_heatmaps
from anomalib_rd.results.record import write_failure
from anomalib_rd.results.scored_image import ScoredImage
from anomalib_rd.tracking import keys

WANDB = {
    "wandb": {
        "_target_": keys.WANDB_LOGGER,
        "project": "theirs",
        "entity": None,
        "group": "study",
        "mode": "offline",
    }
}
GREY = np.full((64, 64, 3), 90, np.uint8)
RD4AD, MASKED = {"sweep": "s"}, {"sweep": "s", "model.masking.ratio": 0.3}


def make_sweep(folder, logger=WANDB, seeds=(0, 1)):
    """Two variants of two categories; in cable the pixel metrics are undefined; one run failed."""
    for number, config in enumerate((RD4AD, MASKED)):
        for category in ("carpet", "cable"):
            for seed in seeds:
                score = 0.9 + 0.02 * number + 0.01 * seed
                metrics = {"image_auroc": score}
                if category == "cable":
                    metrics |= {"pixel_auroc": None, "aupro": None}
                run = folder / f"{category}/{number}-{seed}"
                fake_run(run, category, seed, metrics=metrics, config=config | {"logger": logger})
                path = f"{category}/test/broken/000.png"
                write_heatmaps(
                    run,
                    [
                        ScoredImage(
                            path=path,
                            defect="broken",
                            score=0.9,
                            image=GREY,
                            anomaly_map=np.eye(64),
                        )
                    ],
                )
    write_failure(folder / "cable/failed", RuntimeError("no"))
    return folder


def table(stored, key):
    (row,) = [row for row in stored.history if key in row]
    content = json.loads((stored.files / row[key]["path"]).read_text())
    return [dict(zip(content["columns"], line, strict=True)) for line in content["data"]]
