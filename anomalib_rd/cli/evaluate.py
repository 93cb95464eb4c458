"""``anomalib-rd evaluate``: judge a run's checkpoint again, or on other data."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_rd.cli.common import RunParser
from anomalib_rd.errors import UserError
from anomalib_rd.results.record import EVALUATIONS
from anomalib_rd.results.threshold import QUANTILE

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.table import Table

    from anomalib_rd.inference.checkpoint import Trained

# What the data group says of how the run was trained and judged, kept with other data.
KEPT = ("image_size", "test_batch_size", "num_workers")
RATE = "threshold.false_positive_rate"
OPEN = ("data", "heatmaps", "gallery", "pixel_bins", "pro_rd4ad", RATE)
"""What may change: keys, and groups with all below."""
SETTLED = ("data.image_size",)
"""Of these what may not: the networks' and the scorer's view, which the threshold is of too."""
OF_TRAINING = (
    *("data.train_batch_size", "data.epochs", "data.val", "data.val_share", "data.transform"),
)
"""And what has no effect here."""
PROGRESS = "lightning.pytorch.callbacks.RichProgressBar"
# Younger than the first checkpoints, as is what follows.
DEFAULTS = {"heatmaps": 8, "gallery": "all", "pixel_bins": None, "pro_rd4ad": False}


DATA_DEFAULTS = {"mask_rule": "auto", "pixel_metrics_on": "all"}


def run(words: list[str]) -> int:
    """Judge, print the table, and write ``evaluations/NAME`` in the run's folder."""
    parser = RunParser(
        "evaluate",
        "Judge a run's checkpoint by its test images, as at the end of its training, or by other "
        "data. Writes RUN/evaluations/NAME; the run's own record stays as it is.",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="other data, such as data.root=... data.category=... or data=visa; also heatmaps, "
        f"gallery, pixel_bins, pro_rd4ad, {RATE}",
    )
    parser.add_argument("--name", help="of the evaluation; default: date and time")
    options = parser.parsed(words)
    name = options.name or f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if Path(name).name != name or name == "..":
        parser.error(f"--name {name}: a name, not a path")
    from omegaconf import OmegaConf

    from anomalib_rd.cli.config import register_resolvers
    from anomalib_rd.components import require_data_there, require_known_code
    from anomalib_rd.inference.checkpoint import read_run

    register_resolvers()
    trained = read_run(options.run, options.trust)
    folder = trained.folder / EVALUATIONS / name
    cfg = evaluation_config(trained, options.overrides, folder, options.teacher_weights)
    trained = with_rate(trained, cfg, options.overrides)
    set_device(cfg, options.device)
    settled: Any = OmegaConf.to_container(cfg, resolve=True)
    require_known_code(trained.path, settled, options.trust)
    if not options.trust:
        given = {word.lstrip("+").partition("=")[0] for word in options.overrides}
        require_data_there(trained.path, settled, given)
    from anomalib_rd.inference.evaluate import evaluate

    made = evaluate(trained, cfg, folder, options.overrides, options.other_teacher)
    print_evaluation(made, trained, folder)
    return 0


def evaluation_config(
    trained: "Trained",
    overrides: list[str],
    folder: Path,
    teacher_weights: str | None,
    may_change: Sequence[str] = OPEN,
) -> "DictConfig":
    """The run's config with other data, and without what only training needs.

    Args:
        trained: the run.
        overrides: the user's words.
        folder: where to write.
        teacher_weights: where they are now; None: as the run's config says.
        may_change: keys and groups, as of ``OPEN``.

    Raises:
        UserError: an override of what the checkpoint has settled, or of an unknown key.
    """
    from omegaconf import OmegaConf

    from anomalib_rd.inference.load import with_teacher

    config: dict[str, Any] = DEFAULTS | with_teacher(trained, teacher_weights)
    config["data"] = DATA_DEFAULTS | config["data"]
    cfg = OmegaConf.create(config)
    override(cfg, overrides, may_change)
    on_terminal = sys.stderr.isatty()
    cfg.update(
        run_dir=str(folder.absolute()),
        logger={},
        callbacks={"progress": {"_target_": PROGRESS}} if on_terminal else {},
        objective=None,
        test_curve=False,
    )
    # A model of several categories may be judged on one of them, and any on several.
    wanted = cfg.data.category
    several = OmegaConf.is_list(wanted) and len(wanted) > 1
    unified = several or (cfg.data.get("unified", False) and not is_one(wanted))
    cfg.data.update(val=None, transform=None, unified=unified)
    cfg.trainer.update(
        devices=1,
        num_nodes=1,
        strategy="auto",
        enable_progress_bar=on_terminal,
        enable_checkpointing=False,
        default_root_dir=str(folder.absolute()),
    )
    return cfg


def is_one(category: Any) -> bool:
    """Whether ``data.category`` names one category."""
    from anomalib_rd.cli.categories import GROUPS

    return isinstance(category, str | int) and str(category) not in GROUPS


def with_rate(trained: "Trained", cfg: "DictConfig", overrides: list[str]) -> "Trained":
    """The run with the threshold of the false positive rate that is asked for, if one is.

    Raises:
        UserError: the run's scores of normal images do not allow it.
    """
    if not any(word.lstrip("+").startswith(f"{RATE}=") for word in overrides):
        return trained
    rate = cfg.threshold.false_positive_rate
    if trained.threshold is None:
        raise UserError(f"{RATE}={rate}: the run has no threshold and no scores of normal images")
    cfg.threshold.kind = QUANTILE
    return replace(trained, threshold=trained.threshold.at_rate(rate))


def override(cfg: "DictConfig", overrides: list[str], may_change: Sequence[str]) -> None:
    """Put the user's words into a run's config in place.

    Raises:
        UserError: not an override, an unknown key, or one that must stay as it is.
    """
    from omegaconf import OmegaConf

    from anomalib_rd.cli.categories import composed, parsed
    from anomalib_rd.cli.values import check_values
    from anomalib_rd.cli.words import as_typed

    wrong = [word for word in overrides if "=" not in word or word.startswith("~")]
    if wrong:
        raise UserError(f"{wrong[0]}: not an override; key=value is")
    overrides = as_typed(overrides, many=False)
    given = list(parsed(overrides).values())
    for one in given:
        if one.is_sweep_override():
            raise UserError(f"{one.input_line}: one value; evaluate once for each")
        require_changeable(cfg, one, may_change)
    check_values(overrides)
    keys = {one.key_or_group: one.value() for one in given}
    if "data" in keys:
        words = [one.input_line for one in given if is_part(one.key_or_group, "data")]
        data = composed(words, None).data
        for key in KEPT:
            if f"data.{key}" not in keys and key in cfg.data:
                data[key] = cfg.data[key]
        cfg.data = OmegaConf.to_container(data, resolve=True, throw_on_missing=True)
        keys = {key: value for key, value in keys.items() if not is_part(key, "data")}
    for key, value in keys.items():
        if key != RATE:  # which a run of another kind of threshold lacks
            require_key(cfg, key)
        OmegaConf.update(cfg, key, value)
        # In a resolved config the data's source holds copies of what its group says.
        part, _, name = key.partition(".")
        if part == "data" and name in cfg.data.source:
            OmegaConf.update(cfg, f"data.source.{name}", value)


def require_changeable(cfg: "DictConfig", given: Any, may_change: Sequence[str]) -> None:
    """Refuse an override of what is settled, unless it is the run's own value.

    Raises:
        UserError: naming the key.
    """
    from omegaconf import OmegaConf

    key, line = given.key_or_group, given.input_line
    if not any(is_part(key, one) for one in may_change):
        hint = "; --device says where to compute" if is_part(key, "trainer") else ""
        raise UserError(
            f"{line}: the checkpoint has settled this; what can change is "
            f"{', '.join(may_change)}{hint}"
        )
    if key == "data" and not isinstance(given.value(), str):
        raise UserError(f"{line}: 'data' takes a data set's name; set keys by data.KEY=...")
    if key == "data.source" and not isinstance(given.value(), dict):
        raise UserError(f"{line}: 'data.source' has keys; set them by data.source.KEY=...")
    own = OmegaConf.select(cfg, key, default=None)
    own = OmegaConf.to_container(own) if OmegaConf.is_config(own) else own
    if own is not None and own == given.value():
        return
    if any(is_part(key, one) for one in SETTLED):
        raise UserError(
            f"{line}: the run was trained and its threshold was set at {own}; leave {key} out, or "
            "train a run of this size"
        )
    if any(is_part(key, one) for one in OF_TRAINING):
        raise UserError(f"{line}: only a training uses {key}; leave it out")


def is_part(key: str, of: str) -> bool:
    """Whether a key is the other or below it."""
    return key == of or key.startswith(f"{of}.")


def require_key(cfg: "DictConfig", key: str) -> None:
    """Refuse a key that the run's config lacks."""
    from omegaconf import OmegaConf

    from anomalib_rd.cli.errors import did_you_mean, dotted

    plain: Any = OmegaConf.to_container(cfg)
    known = dotted(plain)
    if key not in known:
        raise UserError(f"no key '{key}' in the run's config{did_you_mean(key, known)}")


def set_device(cfg: "DictConfig", device: str) -> None:
    """Say to the trainer where to compute."""
    from anomalib_rd.inference.load import find_device

    found = find_device(device)
    cfg.trainer.accelerator = "gpu" if found.type == "cuda" else "cpu"
    if found.type == "cuda":
        cfg.trainer.devices = [found.index or 0]


def print_evaluation(record: dict[str, Any], trained: "Trained", folder: Path) -> None:
    """Print the metrics beside those on record, and what they are worth."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from anomalib_rd.inference.evaluate import part_of

    made, data = record["evaluation"], record["data"]
    if not record.get("categories"):
        trained = part_of(trained, data["category"])
    beside = trained.record["metrics"] if made["same_data"] and trained.record else None
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    of = "mean" if record.get("categories") else data["category"]
    columns = ["metric, %", of, *(["on record"] if beside else [])]
    for number, heading in enumerate(columns):
        # Text: a category may hold what rich takes for markup.
        table.add_column(Text(heading), justify="right" if number else "left", no_wrap=True)
    for name, value in record["metrics"].items():
        table.add_row(name, percent(value), *([percent(beside.get(name))] if beside else []))
    # Into a file or pipe rich would assume 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 160)
    counted = sum(data["test_images"].values())
    print(f"{made['run']}, {record['protocol']['epochs']} epochs, on {counted} images of ", end="")
    print(f"{data['name']} {data['category']}")
    console.print(table)
    if record.get("categories"):
        console.print(by_category(record["categories"]))
    for reason in dict.fromkeys(record["undefined"].values()):
        print(f"undefined: {reason}")
    print(agreement(made))
    if record["at_threshold"]:
        at = record["at_threshold"]
        print(f"threshold {trained.threshold}")
        print(f"  {at['true_positives']} of {at['defects']} defect images reach it,", end=" ")
        print(f"{at['false_positives']} of {at['normals']} normal ones")
    # Of the run's own test images it would be a choice on the test set.
    if made["same_data"] is False and record["best_f1_from"] is not None:
        print(f"best F1 on these images from {record['best_f1_from']} on: --threshold of predict")
    print(f"written to {folder}")


def by_category(metrics: dict[str, dict[str, float]]) -> "Table":
    """A row for each category of a model for several."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("category, %", no_wrap=True)
    for name in next(iter(metrics.values())):
        table.add_column(name.replace("_", " "), justify="right")
    for category, own in metrics.items():
        table.add_row(Text(category), *map(percent, own.values()))
    return table


def agreement(made: dict[str, Any]) -> str:
    """Whether the numbers are those on record, in words."""
    if made["same_data"] is None:
        return "the run has no record to compare with"
    if not made["same_data"] and not any(is_of_data(word) for word in made["overrides"]):
        return (
            "the images are not those that the run was trained and judged on (the data fingerprint"
            " differs): not compared with its record; data.root=... says where those are"
        )
    if not made["same_data"]:
        return "other data than the run's: not compared with its record"
    if made["equal"] is None:
        return "the run's own data; it has no record to compare with"
    if made["equal"]:
        return "the run's own data: all metrics and scores equal the record, to the bit"
    names = ", ".join(made["differing"]) or "scores alone"
    return f"the run's own data, but not the record's numbers: {names} (another machine or batch?)"


def is_of_data(override: str) -> bool:
    """Whether the user asked for other data by this word."""
    return override.partition("=")[0].partition(".")[0] == "data"


def percent(value: float | None) -> str:
    """A fraction in percent with two decimals; n/a where undefined."""
    return "n/a" if value is None or value != value else f"{100 * value:.2f}"
