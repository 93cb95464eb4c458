"""What a saved W&B workspace shows; `workspace_view` makes W&B's own objects of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from anomalib_rd.tracking import keys

CONFIG = "config."
EPOCH = "epoch"
GROUP, JOB_TYPE = "Group", "JobType"  # W&B's names of what a run is grouped by

# What an ablation varies; a run whose config lacks the key stands apart.
VARIED = {
    "model": "config.model.name",
    "teacher": "config.model.teacher.name",
    "masking": "config.model.masking._target_",
    "masking strategy": "config.model.masking.strategy",
    "attention": "config.model.fusion.attention",
    "loss": "config.loss._target_",
}
AXES = (
    "config.model.masking.ratio",
    VARIED["attention"],
    VARIED["loss"],
    "config.seed",
    "test/image_auroc",
)


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        kind: ``bars``, ``lines`` (over epochs), ``scatter`` (x, y), ``parallel`` (an axis for
            each key), ``media`` (images), ``table``, or ``chart`` (bars of a logged table).
        title: shown above it.
        keys: logged names, or ``config.`` and a key of the config.
        group_by: whose values the bars are means of; None: the runs' grouping.
    """

    kind: Literal["bars", "lines", "scatter", "parallel", "media", "table", "chart"]
    title: str
    keys: tuple[str, ...]
    group_by: str | None = None


@dataclass(frozen=True)
class Section:
    """Panels under one heading."""

    name: str
    panels: tuple[Panel, ...]
    is_open: bool = False


@dataclass(frozen=True)
class Workspace:
    """A saved view of a project; ``group_by`` groups its list of runs."""

    name: str
    project: str
    entity: str | None
    group_by: tuple[str, ...]
    sections: tuple[Section, ...]


def define_workspace(
    name: str, project: str, entity: str | None, categories: Sequence[str]
) -> Workspace:
    """The workspace of a project whose runs `anomalib-rd train` logs.

    A view has one list of runs, so the sweeps' summary runs are in it; grouped by job type they
    stand apart, and they share no key with the panels of the other runs.
    """
    sections = (
        Section("Categories", _per_category(categories), is_open=True),
        Section("Means over runs", _means(), is_open=True),
        Section("Sweeps", _sweeps(), is_open=True),
        Section("Ablation", _ablation()),
        Section("Training", _training()),
        Section("Images", _images()),
    )
    return Workspace(name, project, entity, (GROUP, JOB_TYPE), sections)


def _per_category(categories: Sequence[str]) -> tuple[Panel, ...]:
    return tuple(
        Panel("bars", f"{metric} of each category", tuple(f"{c}/{metric}" for c in categories))
        for metric in keys.HEADLINE
    )


def _means() -> tuple[Panel, ...]:
    return tuple(
        Panel("bars", f"{metric} by {label}", (f"test/{metric}",), group_by)
        for label, group_by in (("sweep", GROUP), ("model", VARIED["model"]))
        for metric in keys.HEADLINE
    )


def _sweeps() -> tuple[Panel, ...]:
    tables = {"categories, %": keys.CATEGORIES, "differences": keys.DIFFERENCES}
    return (
        *(Panel("table", title, (key,)) for title, key in tables.items()),
        *(Panel("chart", f"{m}, %", (keys.bars(m),)) for m in keys.HEADLINE),
        Panel("media", "heatmaps of a sweep", (keys.HEATMAPS,)),
    )


def _ablation() -> tuple[Panel, ...]:
    return (
        *(
            Panel("bars", f"{metric} by {label}", (f"test/{metric}",), key)
            for label, key in VARIED.items()
            if label != "model"
            for metric in keys.HEADLINE
        ),
        Panel("scatter", "image AUROC and AUPRO", ("test/image_auroc", "test/aupro")),
        Panel("parallel", "what image AUROC goes with", AXES),
    )


def _training() -> tuple[Panel, ...]:
    curves = [f"{stage}/{metric}" for stage in ("val", "test_curve") for metric in keys.HEADLINE]
    return tuple(Panel("lines", key, (key,)) for key in ("train/loss", *curves))


def _images() -> tuple[Panel, ...]:
    return (
        Panel("media", "examples with prediction and ground truth", (keys.EXAMPLES,)),
        Panel("media", "anomaly maps", (keys.MAPS,)),
        Panel("table", "all test images", (keys.IMAGES,)),
    )
