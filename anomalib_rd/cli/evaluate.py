"""``anomalib-rd evaluate``: evaluate a run's checkpoint again, or on other data."""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_rd.cli.common import Parser, add_run_arguments, parse_run_keyword
from anomalib_rd.errors import UserError
from anomalib_rd.reports.formatting import format_percent
from anomalib_rd.results.record import EVALUATIONS
from anomalib_rd.results.threshold import QUANTILE

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.table import Table

    from anomalib_rd.inference.load import TrainedRun

RATE = "threshold.false_positive_rate"
CHANGEABLE = ("data", "report.heatmaps", "report.gallery", "metrics", RATE)
"""Keys that overrides may change, and groups with all keys below."""
FIXED = ("data.image_size",)
"""Exceptions: networks, scorer and threshold depend on their values."""
TRAINING_ONLY = ("data.train_batch_size", "data.default_epochs", "data.transform")
"""Exceptions: keys that have no effect on an evaluation."""
KEYS_OF_RUN = ("image_size", "test_batch_size", "num_workers")
PROGRESS_BAR = "lightning.pytorch.callbacks.RichProgressBar"


def add_arguments(parser: Parser) -> None:
    """Add the options of the command."""
    parser.describe(
        "Evaluate a run's checkpoint on its test images, as at the end of training, or on other "
        "data. Writes RUN/evaluations/NAME; the run's own record does not change.",
        "runs/mine",
        "runs/mine data.root=/data/mvtec data.category=cable --name cable",
        "runs/mine threshold.false_positive_rate=0.02",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="other data, such as data.root=... data.category=... or data=visa; also "
        f"report.heatmaps, report.gallery, metrics.KEY, {RATE}",
    )
    parser.add_argument("--name", help="name of the evaluation (default: date and time)")
    parser.set_defaults(run_action=run)


def run(options: Namespace) -> int:
    """Evaluate, print the metrics, and write ``evaluations/NAME`` in the run's folder."""
    parse_run_keyword(options, "overrides")
    name = options.name or f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if Path(name).name != name or name == "..":
        raise UserError(f"evaluate: --name {name}: must be a name, not a path")
    from omegaconf import OmegaConf

    from anomalib_rd.cli.config import register_resolvers
    from anomalib_rd.components import require_existing_data, require_known_code
    from anomalib_rd.inference.devices import find_device
    from anomalib_rd.inference.evaluate import evaluate
    from anomalib_rd.inference.load import read_run

    register_resolvers()
    trained = read_run(options.run, options.trust)
    folder = trained.folder / EVALUATIONS / name
    cfg = evaluation_config(trained, options.overrides, folder, options.teacher_weights)
    given = {override.lstrip("+").partition("=")[0] for override in options.overrides}
    if RATE in given:
        rate = cfg.threshold.false_positive_rate
        if trained.threshold is None:
            raise UserError(
                f"{RATE}={rate}: the run has no threshold and no scores of normal images"
            )
        cfg.threshold.kind = QUANTILE
        trained = replace(trained, threshold=trained.threshold.at_rate(rate))
    device = find_device(options.device)
    cfg.trainer.accelerator = "gpu" if device.type == "cuda" else "cpu"
    cfg.trainer.devices = [device.index or 0] if device.type == "cuda" else 1
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    require_known_code(trained.path, resolved, options.trust)
    if not options.trust:
        require_existing_data(trained.path, resolved, given)
    record = evaluate(trained, cfg, folder, options.overrides, options.other_teacher)
    _print_evaluation(record, trained, folder)
    return 0


def evaluation_config(
    trained: "TrainedRun",
    overrides: list[str],
    folder: Path,
    teacher_weights: str | None,
    changeable: Sequence[str] = CHANGEABLE,
) -> "DictConfig":
    """The run's config with other data, and without settings that only training needs.

    Args:
        trained: the run.
        overrides: as typed.
        folder: output folder.
        teacher_weights: current path; None: that in the run's config.
        changeable: keys and groups that the overrides may change.

    Raises:
        UserError: an override of a fixed or unknown key.
    """
    from omegaconf import OmegaConf

    from anomalib_rd.cli.overrides import CATEGORY_GROUPS, require_current_config
    from anomalib_rd.inference.load import with_teacher

    require_current_config(trained.path, trained.config)
    cfg = OmegaConf.create(with_teacher(trained, teacher_weights))
    _apply_overrides(cfg, overrides, changeable)
    on_terminal = sys.stderr.isatty()
    cfg.update(
        run_dir=str(folder.absolute()),
        logger={},
        callbacks={"progress": {"_target_": PROGRESS_BAR}} if on_terminal else {},
        optimized_metric=None,
        test_during_training=False,
    )
    # A unified model can be evaluated on one category, and any model on several.
    category = cfg.data.category
    single = isinstance(category, str | int) and str(category) not in CATEGORY_GROUPS
    several = OmegaConf.is_list(category) and len(category) > 1
    unified = several or (cfg.data.get("unified", False) and not single)
    cfg.data.update(transform=None, unified=unified)
    cfg.validation.kind = None
    cfg.trainer.update(
        devices=1,
        num_nodes=1,
        strategy="auto",
        enable_progress_bar=on_terminal,
        enable_checkpointing=False,
        default_root_dir=str(folder.absolute()),
    )
    return cfg


def _apply_overrides(cfg: "DictConfig", overrides: list[str], changeable: Sequence[str]) -> None:
    """Apply the overrides to a run's config, in place."""
    from omegaconf import OmegaConf

    from anomalib_rd.cli.config import compose_config, parse_overrides
    from anomalib_rd.cli.errors import did_you_mean, dotted
    from anomalib_rd.cli.override_checks import check_overrides
    from anomalib_rd.cli.overrides import quote_overrides

    for text in overrides:
        if "=" not in text or text.startswith("~"):
            raise UserError(f"{text}: not an override; write key=value")
    overrides = quote_overrides(overrides, multirun=False)
    given = list(parse_overrides(overrides).values())
    for override in given:
        if override.is_sweep_override():
            raise UserError(f"{override.input_line}: give one value; evaluate once for each")
        _require_changeable(cfg, override, changeable)
    check_overrides(overrides)
    values = {override.key_or_group: override.value() for override in given}
    if "data" in values:
        group = [o.input_line for o in given if _is_part(o.key_or_group, "data")]
        data = compose_config(group).data
        for key in KEYS_OF_RUN:
            if f"data.{key}" not in values and key in cfg.data:
                data[key] = cfg.data[key]
        cfg.data = OmegaConf.to_container(data, resolve=True, throw_on_missing=True)
        values = {key: value for key, value in values.items() if not _is_part(key, "data")}
    plain: Any = OmegaConf.to_container(cfg)
    known = dotted(plain)
    for key, value in values.items():
        if key != RATE and key not in known:  # runs with another kind of threshold have no rate
            raise UserError(f"no key '{key}' in the run's config{did_you_mean(key, known)}")
        OmegaConf.update(cfg, key, value)
        # In a resolved config the data's source has copies of the values of its group.
        part, _, name = key.partition(".")
        if part == "data" and name in cfg.data.source:
            OmegaConf.update(cfg, f"data.source.{name}", value)


def _require_changeable(cfg: "DictConfig", override: Any, changeable: Sequence[str]) -> None:
    """Refuse an override that changes what the checkpoint was trained with."""
    from omegaconf import OmegaConf

    key, line, value = override.key_or_group, override.input_line, override.value()
    if not any(_is_part(key, one) for one in changeable):
        hint = "; choose the device with --device" if _is_part(key, "trainer") else ""
        raise UserError(
            f"{line}: fixed by the checkpoint; you can change {', '.join(changeable)}{hint}"
        )
    if key == "data" and not isinstance(value, str):
        raise UserError(f"{line}: 'data' takes the name of a data set; set keys by data.KEY=...")
    if key == "data.source" and not isinstance(value, dict):
        raise UserError(f"{line}: 'data.source' has keys; set them by data.source.KEY=...")
    current = OmegaConf.select(cfg, key, default=None)
    current = OmegaConf.to_container(current) if OmegaConf.is_config(current) else current
    if current is not None and current == value:
        return
    if any(_is_part(key, one) for one in FIXED):
        raise UserError(
            f"{line}: the run was trained and its threshold fitted with {current}; omit {key}, or "
            "train a run with this value"
        )
    if any(_is_part(key, one) for one in TRAINING_ONLY):
        raise UserError(f"{line}: {key} affects only training; omit it")


def _is_part(key: str, group: str) -> bool:
    return key == group or key.startswith(f"{group}.")


def _print_evaluation(record: dict[str, Any], trained: "TrainedRun", folder: Path) -> None:
    """Print the metrics, next to the recorded ones if the data is the same, and notes."""
    from rich.console import Console

    from anomalib_rd.inference.evaluate import with_category_record

    evaluation, data = record["evaluation"], record["data"]
    categories = record.get("categories")
    if not categories:
        trained = with_category_record(trained, data["category"])
    columns = {"mean" if categories else data["category"]: record["metrics"]}
    if evaluation["same_data"] and trained.record:
        columns["recorded"] = trained.record["metrics"]
    rows = {name: [one.get(name) for one in columns.values()] for name in record["metrics"]}
    images = sum(data["test_images"].values())
    print(
        f"{evaluation['run']}, {record['protocol']['epochs']} epochs, on {images} images of "
        f"{data['name']} {data['category']}"
    )
    # In a file or pipe rich assumes 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(_percent_table(["metric, %", *columns], rows))
    if categories:
        metrics = [name.replace("_", " ") for name in next(iter(categories.values()))]
        by_category = {name: [*values.values()] for name, values in categories.items()}
        console.print(_percent_table(["category, %", *metrics], by_category))
    for reason in dict.fromkeys(record["undefined"].values()):
        print(f"undefined: {reason}")
    print(_compare_with_record(evaluation))
    if counts := record["at_threshold"]:
        print(f"threshold {trained.threshold}")
        print(
            f"  {counts['true_positives']} of {counts['defects']} defect images and "
            f"{counts['false_positives']} of {counts['normals']} normal images reach it"
        )
    # Not for the run's own test images: that would choose it on the test set.
    if evaluation["same_data"] is False and record["best_f1_threshold"] is not None:
        print(f"threshold that maximises F1 on these images: {record['best_f1_threshold']}")
    print(f"written to {folder}")


def _percent_table(headings: Sequence[str], rows: Mapping[str, Sequence[float | None]]) -> "Table":
    """A table of fractions in percent, a row for each name."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for number, heading in enumerate(headings):
        # Text: a category's name may contain rich's markup.
        table.add_column(Text(heading), justify="right" if number else "left", no_wrap=True)
    for name, values in rows.items():
        table.add_row(Text(name), *map(format_percent, values))
    return table


def _compare_with_record(evaluation: dict[str, Any]) -> str:
    """Whether the metrics equal the recorded ones, as a sentence."""
    same_data, equal = evaluation["same_data"], evaluation["equal"]
    if same_data is None:
        return "the run has no record to compare with"
    if not same_data:
        keys = {o.lstrip("+").partition("=")[0] for o in evaluation["overrides"]}
        if any(_is_part(key, "data") for key in keys):
            return "not the data of the run: not compared with its record"
        return (
            "the images differ from those that the run was trained and evaluated on (another data "
            "fingerprint): not compared with its record; set their folder with data.root=..."
        )
    if equal is None:
        return "the run's own data; it has no record to compare with"
    if equal:
        return "the run's own data: all metrics and scores equal the record exactly"
    names = ", ".join(evaluation["differing"]) or "scores only"
    return f"the run's own data, but different from the record: {names} (other machine or batch?)"
