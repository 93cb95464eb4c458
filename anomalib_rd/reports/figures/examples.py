"""Which test images of a run are worth showing."""

from io import BytesIO

import numpy as np
import pandas as pd
from PIL import Image

from anomalib_rd.errors import UserError
from anomalib_rd.results.files import one_line
from anomalib_rd.results.gallery import Gallery
from anomalib_rd.results.record import read_scores
from anomalib_rd.results.scored_image import ScoredImage

KINDS = ("lowest-scored defect", "typical defect", "highest-scored normal")


def choose(scores: pd.DataFrame) -> dict[str, str]:
    """Kind -> path: the defect most likely missed, the middle one, the normal one most suspected.

    Args:
        scores: rows with ``path, label, score``. Ties go by path; a kind may be lacking.
    """
    ordered = scores.dropna(subset="score").sort_values(["score", "path"])
    defects = ordered["path"][ordered["label"] == 1].tolist()
    normals = ordered["path"][ordered["label"] == 0].tolist()
    chosen = {}
    if defects:
        chosen = {KINDS[0]: defects[0], KINDS[1]: defects[len(defects) // 2]}
    if normals:
        chosen[KINDS[2]] = normals[-1]
    return chosen


def pictures(run: str) -> dict[str, ScoredImage]:
    """Kind -> the image, of those in the run's gallery; its map in grey levels.

    Raises:
        UserError: the scores or the gallery cannot be read.
    """
    with Gallery(run) as gallery:
        scores = read_scores(run)
        scores = scores[scores["path"].isin(gallery.paths)]
        defects = dict(zip(scores["path"], scores["defect"], strict=True))
        values = dict(zip(scores["path"], scores["score"], strict=True))
        return {
            kind: ScoredImage(
                image=_pixels(gallery.image(path), run),
                mask=gallery.mask(path),
                anomaly_map=_pixels(gallery.map(path), run),
                path=path,
                defect=defects[path],
                score=values[path],
            )
            for kind, path in choose(scores).items()
        }


def _pixels(content: bytes, run: str) -> np.ndarray:
    try:
        with Image.open(BytesIO(content), formats=["JPEG"]) as picture:
            return np.asarray(picture)
    except OSError as error:
        raise UserError(f"{run}: an image of its gallery is damaged ({one_line(error)})") from error
