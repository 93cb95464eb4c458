"""The images of a run, from its config."""

from concurrent.futures import ThreadPoolExecutor

from hydra.utils import instantiate
from omegaconf import DictConfig

from anomalib_rd.components import build
from anomalib_rd.data import (
    AnomalyDataModule,
    ImageCache,
    Sample,
    Source,
    select_categories,
    select_together,
)
from anomalib_rd.errors import UserError
from anomalib_rd.scoring import Tiling
from anomalib_rd.training.module import TEST, TEST_CURVE, VAL


def make_data(cfg: DictConfig) -> AnomalyDataModule:
    """The data module of the category that the config names, or with ``unified`` of the set."""
    source: Source = build(cfg.data.source, "data.source")
    unified = cfg.data.get("unified", False)  # the records of older runs lack it
    choose = select_together if unified else select_categories
    categories = choose(source, cfg.data.category)
    if len(categories) > 1 and not unified:
        raise UserError(
            f"data.category={cfg.data.category}: one run trains one category and these are "
            f"{len(categories)}; add -m to train one model each, or data.unified=true to train one "
            "for all"
        )
    tiling = make_tiling(cfg)
    return AnomalyDataModule(
        source=source,
        category=categories,
        image_size=cfg.data.image_size,
        train_batch_size=cfg.data.train_batch_size,
        test_batch_size=cfg.data.test_batch_size,
        num_workers=cfg.data.num_workers,
        transform=instantiate(cfg.data.transform) if cfg.data.transform else None,
        seed=cfg.seed,
        cache=ImageCache() if cfg.speed.image_cache else None,
        val=cfg.data.val,
        val_share=cfg.data.val_share,
        test_curve=cfg.test_curve,
        tiles=tiling.boxes(cfg.data.image_size) if tiling.size else None,
    )


def require_readable(data: AnomalyDataModule) -> None:
    """Read each test image and mask once: an unreadable one is not to be found after the training.

    It is little work, and none again where decoded images are cached.

    Raises:
        UserError: naming the file.
    """
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(data.test_set.__getitem__, range(len(data.test_set))):
            pass


def make_tiling(cfg: DictConfig) -> Tiling:
    """What the networks see of an image at once; the records of older runs lack it."""
    tiling: Tiling | None = build(cfg.model.get("tiling"), "model.tiling")
    return tiling or Tiling()


def categories_of(data: AnomalyDataModule) -> dict[str, list[str]]:
    """The category of each image that a stage looks at."""

    def names(samples: list[Sample]) -> list[str]:
        return [sample.category for sample in samples]

    test = names(data.split.test)
    held_out = {} if data.val_set is None else {VAL: names(data.val_set.samples)}
    return held_out | {TEST_CURVE: test, TEST: test}


def why_no_masks(data: AnomalyDataModule) -> dict[str, str]:
    """Category -> why pixel metrics are undefined on it; those that have them are absent."""
    reasons = {}
    for category, split in data.splits.items():
        defects = [s for s in split.test if s.label]
        without = sum(s.mask is None for s in defects)
        if without:
            reasons[category] = (
                f"{without} of {len(defects)} defect images have no ground-truth mask"
            )
    return reasons
