"""The files of a study: results.csv, summary.md and figure.png of a sweep."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from anomalib_rd.errors import UserError
from anomalib_rd.reports.comparison_table import comparison_table
from anomalib_rd.reports.figures import describe_seeds
from anomalib_rd.reports.figures.charts import draw_bars, draw_differences
from anomalib_rd.reports.figures.style import (
    PNG_DPI,
    WIDTH,
    add_legend_and_notes,
    colour,
    dashes,
    paper_style,
    set_title,
)
from anomalib_rd.reports.formatting import (
    MISSING,
    format_count,
    format_duration,
    format_points,
)
from anomalib_rd.reports.result_tables import HEADLINE, metric_name, overview_table, variant_table
from anomalib_rd.reports.table_model import Column, Document, Notes, Row, Table
from anomalib_rd.reports.text_tables import to_markdown
from anomalib_rd.results.files import one_line, write_atomically
from anomalib_rd.results.published import DATA, MVTEC_AD, Published, load_published
from anomalib_rd.results.record import find_failures, parent_run, read_record
from anomalib_rd.results.runs_table import (
    ORACLE,
    RUN_COLUMNS,
    category_table,
    drop_repeats,
    load_runs,
    metric_columns,
    write_csv,
)
from anomalib_rd.results.statistics import (
    MIN_VARIANTS,
    choose_baselines,
    compare_variants,
    rank_agreement,
    smallest_difference,
    spread_factors,
    validation_metrics,
)
from anomalib_rd.results.sweeps import failure_reason, read_commands

RESULTS, SUMMARY, FIGURE = "results.csv", "summary.md", "figure.png"
COMPARISONS = "comparisons.csv"
# Columns of results.csv before the metrics.
DESCRIPTION = (
    "variant",
    "data",
    "category",
    "seed",
    "model",
    "teacher",
    "epochs",
    "image_size",
    "train_s",
    "total_s",
    "train_images_per_s",
    "test_images_per_s",
    "fingerprint",
    "run",
)
BUDGETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # epochs
SEEDS = (2, 3, 5, 10)
HASH = 8  # digits
_EPOCHS = re.compile(r" (?:trainer\.)?max_epochs=\S+")
_ABSOLUTE_FOLDER = re.compile(r"(?<==)('?)/[^\s,]*/")
AGREEMENT_COLUMNS = [
    Column(("metric", "")),
    Column(("Spearman's", "rho")),
    Column(("p", "(permutation)", "")),
    Column(("variants", "")),
    Column(("runs per", "variant", "")),
]


def record_study(sweep: Path, out: Path, baseline: str | None = None) -> list[Path]:
    """Write ``results.csv``, ``summary.md`` and ``figure.png`` of a sweep, each atomically.

    With several variants also ``comparisons.csv``, all rows of `compare_variants`.

    ``results.csv`` has a row for each run: `DESCRIPTION` (``run`` relative to the sweep), the
    test metrics, those of the validation as ``val/<metric>``, and those of the best epoch of the
    test curve as ``oracle_<metric>``; all in fractions.

    Args:
        sweep: its folder.
        out: folder of the files, created if needed.
        baseline: variant to compare with; see `compare_variants`.

    Returns:
        The files.

    Raises:
        UserError: no complete run, no such baseline, several data sets, an unreadable file, or a
            folder that cannot be written.
    """
    runs = load_runs([sweep])
    if runs["data"].nunique() > 1:
        names = ", ".join(runs["data"].unique())
        raise UserError(f"{sweep}: runs on {names}; a study has one data set")
    validation = validation_metrics(runs)
    by_budget = expand_budgets(runs)
    compared = compare_variants(runs, baseline)
    tables = [*_result_tables(runs, compared, validation), *_budget_tables(by_budget)]
    failed = [f"{path.relative_to(sweep)}: {failure_reason(path)}" for path in find_failures(sweep)]
    text = "\n".join([*describe_setup(sweep, runs), "", to_markdown(Document(tables, failed))])
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [
            write_csv(_results_csv(runs, validation, sweep), out / RESULTS),
            write_atomically(out / SUMMARY, lambda file: file.write(text.encode())),
            *([write_csv(compared, out / COMPARISONS)] if len(compared) else []),
            *_write_figure(runs, compared, by_budget, out / FIGURE),
        ]
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({one_line(error)}); choose another --out"
        ) from (error)


def _results_csv(runs: pd.DataFrame, validation: pd.DataFrame, sweep: Path) -> pd.DataFrame:
    table = runs.drop(columns=[name for name in RUN_COLUMNS if name not in DESCRIPTION])
    metrics = [name for name in table.columns if name not in DESCRIPTION]
    table = table[[*DESCRIPTION, *metrics]].join(validation)
    relative = [Path(run).relative_to(sweep).as_posix() for run in runs["run"]]
    return table.assign(run=relative).round({"train_s": 1, "total_s": 1})


def describe_setup(sweep: Path, runs: pd.DataFrame) -> list[str]:
    """Budget, data, teacher, machine, commit and command as a Markdown list.

    What differs between runs is listed with all its values.

    Args:
        sweep: its folder.
        runs: of `load_runs`.

    Raises:
        UserError: an unreadable file.
    """
    records = [read_record(run) for run in runs["run"]]
    parents = runs.loc[~runs["run"].map(parent_run).duplicated()]
    prints = runs[["category", "fingerprint"]].drop_duplicates().sort_values("category")
    images = {r["data"]["category"]: r["data"].get("train_images") for r in records}
    data = ", ".join(
        f"{category} ({images[category]} training images, {str(fingerprint)[:HASH]})"
        for category, fingerprint in prints.itertuples(index=False)
    )
    lines = {
        "Runs": f"{len(parents)}; {parents['total_s'].sum() / 3600:.1f} hours in total, "
        f"median {format_duration(parents['total_s'].median())}",
        "Budget": f"{_join(runs['epochs'])} epochs, {_join(runs['image_size'])} pixels, "
        f"seeds {_join(runs['seed'])}",
        "Teacher": _join(runs["teacher"]),
        "Data": f"{_join(runs['data'])}: {data}",
        "Validation": _join(map(_describe_validation, records)),
        "Machine": _join(map(_describe_machine, records)),
        "Software": _join(map(_describe_software, records)),
        "Commit": _join(map(_describe_commit, records)),
    }
    # Absolute folders belong to one machine.
    commands = [_ABSOLUTE_FOLDER.sub(r"\1.../", c["command"]) for c in read_commands(sweep)]
    lines |= {"Command": " and ".join(f"`{c}`" for c in commands)} if commands else {}
    return [f"- {name}: {text}" for name, text in lines.items()]


def _join(values: Iterable[Any]) -> str:
    return "; ".join(str(value) for value in dict.fromkeys(values))


def _describe_validation(record: Mapping[str, Any]) -> str:
    held_out = record["protocol"].get("validation")
    if not held_out:
        return "none, all normal images are used for training"
    return f"{held_out['kind']}, {held_out['share']:.0%} of the normal training images held out"


def _describe_machine(record: Mapping[str, Any]) -> str:
    hardware = record.get("provenance", {}).get("hardware") or {}
    cpu = f"{hardware.get('cores', '?')} cores of {hardware.get('cpu') or 'an unknown CPU'}"
    return f"{hardware['accelerator']}, {cpu}" if hardware.get("accelerator") else cpu


def _describe_software(record: Mapping[str, Any]) -> str:
    software = record.get("provenance", {}).get("software") or {}
    return ", ".join(f"{name} {software.get(name, '?')}" for name in ("python", "torch", "timm"))


def _describe_commit(record: Mapping[str, Any]) -> str:
    git = record.get("provenance", {}).get("git")
    if not git:
        return "unknown"
    return git["commit"][:HASH] + (" with uncommitted changes" if git["dirty"] else "")


def _result_tables(
    runs: pd.DataFrame, compared: pd.DataFrame, validation: pd.DataFrame
) -> Iterator[Table]:
    summary, published = category_table(runs), _comparable_published(runs)
    if runs["variant"].nunique() > 1:
        yield overview_table(runs, summary, published)
        headline = compared[compared["metric"].isin(HEADLINE)]
        if len(headline):
            yield comparison_table(headline)
        if len(validation.columns):
            agreement = rank_agreement(runs, validation)
            yield agreement_table(agreement[agreement["metric"].isin(HEADLINE)])
    else:
        yield variant_table(runs, summary, published, with_means=True)
        if runs["seed"].nunique() > 1:
            yield seed_noise_table(runs)


def _comparable_published(runs: pd.DataFrame) -> dict[str, Published]:
    """Published results, if the runs cover all categories of MVTec AD."""
    is_complete = runs["data"].iloc[0] == DATA and set(runs["category"]) == MVTEC_AD
    return dict(load_published()) if is_complete else {}


def agreement_table(agreement: pd.DataFrame) -> Table:
    """Does the validation rank the variants like the test?

    Args:
        agreement: rows of `rank_agreement` on one data set.
    """
    notes = Notes()
    rows = []
    for row in agreement.to_dict("records"):
        rho = MISSING if np.isnan(row["rho"]) else f"{row['rho']:+.2f}"
        p = MISSING if np.isnan(row["p"]) else f"{row['p']:.3f}"
        if np.isnan(row["rho"]):
            few = f"fewer than {MIN_VARIANTS} variants have both: no rank correlation"
            equal = "all variants are equal in validation or test"
            rho += notes.add(few if row["n"] < MIN_VARIANTS else equal)
        cells = (metric_name(row["metric"]), rho, p, str(row["n"]), str(row["n_runs"]))
        rows.append(Row(row["category"], cells))
    return Table(
        title="Does the validation rank variants like the test?",
        statement="Rank correlation over the variants between a metric on held-out training images "
        "with synthetic defects and the same metric on the test images; +1: same order.",
        label="category",
        columns=AGREEMENT_COLUMNS,
        sections=[rows],
        notes=notes,
        remarks=[
            "A variant's value is the mean over the categories and seeds that all variants have. "
            "p: two-sided, against no correlation. Neighbours in rank may differ by less than "
            "noise."
        ],
    )


def seed_noise_table(runs: pd.DataFrame) -> Table:
    """The standard deviation over seeds, and the differences that some seeds detect.

    Args:
        runs: of `load_runs`, one data set and variant, at least 2 seeds.
    """
    notes, rows = Notes(), []
    for metric in [m for m in HEADLINE if m in runs]:
        values = drop_repeats(runs).pivot(index="seed", columns="category", values=metric)
        means = values.dropna(axis=1, how="all").dropna().mean(axis=1)
        if len(means) < 2 or np.ptp(means) == 0:
            few = "fewer than 2 seeds cover every category"
            mark = notes.add(few if len(means) < 2 else "the same with every seed")
            cells = [MISSING + mark, *[MISSING] * (1 + len(SEEDS))]
        else:
            variance = means.var(ddof=1)
            low, high = (100 * variance**0.5 * f for f in spread_factors(len(means)))
            counts = np.array([SEEDS, SEEDS])
            detected = 100 * smallest_difference(np.array([variance, variance]), counts)
            cells = [f"{100 * variance**0.5:.2f}", f"{low:.2f} to {high:.2f}"]
            cells += [f"{value:.2f}" for value in detected]
        rows.append(Row(metric_name(metric), tuple(cells)))
    columns = [Column(("std over seeds", "points")), Column(("true std, 95 %", "points"))]
    columns += [Column((f"{n} seeds detect", "points")) for n in SEEDS]
    categories = format_count(runs["category"].nunique(), "category", "categories")
    return Table(
        title="Noise of the seeds",
        statement=f"Standard deviation of the mean over {categories} between "
        f"{runs['seed'].nunique()} seeds, and the smallest true difference between two such "
        "variants that a two-sided t-test (alpha 0.05) detects in 4 of 5 cases.",
        label="metric",
        columns=columns,
        sections=[rows],
        notes=notes,
    )


def expand_budgets(runs: pd.DataFrame) -> pd.DataFrame:
    """The points of the test curves as if each were a run with that number of epochs.

    With a constant learning rate they are: the last epoch of a shorter run is the same epoch of
    a longer one. Runs with a schedule are left out.

    Args:
        runs: of `load_runs`; their records are read again.

    Returns:
        Rows like those of `load_runs` for each variant, category, seed and epoch, and the last
        epoch of all runs. ``of`` is the variant without its number of epochs, ``variant`` has
        that of the point. No rows if no run has a test curve. Durations are NaN, and ``oracle_``
        columns are missing: they belong to complete runs.

    Raises:
        UserError: a record that cannot be read.
    """
    metrics = metric_columns(runs)
    rows: list[dict[str, Any]] = []
    has_curve = False
    table = drop_repeats(runs).drop(columns=[c for c in runs if str(c).startswith(ORACLE)])
    for run in table.to_dict("records"):
        record = read_record(run["run"])
        if record["config"].get("scheduler"):
            continue
        points = {int(point["epoch"]): point for point in record["test_curve"]}
        has_curve |= bool(points)
        points[run["epochs"]] = {m: run[m] for m in metrics}
        of = _EPOCHS.sub("", run["variant"])
        for epoch, point in points.items():
            row = {str(name): value for name, value in run.items()}
            row |= {"of": of, "variant": _with_epochs(of, epoch), "epochs": epoch}
            row |= {"total_s": np.nan, "train_s": np.nan}
            rows.append(row | {m: point.get(m, np.nan) for m in metrics})
    expanded = pd.DataFrame(rows if has_curve else [], columns=[*table.columns, "of"])
    return expanded.sort_values(["of", "epochs"], kind="stable", ignore_index=True)


def _with_epochs(variant: str, epochs: int) -> str:
    return f"{variant} epochs={epochs}"


def _budget_tables(by_budget: pd.DataFrame) -> Iterator[Table]:
    """Fewer epochs against the baseline at equal budget, and against the variant's last epoch."""
    last = by_budget.groupby("of")["epochs"].transform("max")
    rows = by_budget[by_budget["epochs"].isin(BUDGETS) | (by_budget["epochs"] == last)]
    equal = equal_budget_table(rows) if len(rows) else None
    if equal is not None:
        yield equal
    for variant, part in rows.groupby("of", sort=False):
        own = part.drop(columns="of")
        yield overview_table(own, category_table(own), {})
        compared = compare_variants(own, _with_epochs(str(variant), own["epochs"].max()))
        compared = compared[compared["metric"].isin(HEADLINE)]
        if len(compared):
            yield comparison_table(compared)


def equal_budget_table(by_budget: pd.DataFrame) -> Table | None:
    """The variants against the baseline after equal numbers of epochs: which converges faster?

    Args:
        by_budget: of `expand_budgets`, one data set.

    Returns:
        None if there is one variant.
    """
    metrics = [m for m in HEADLINE if m in by_budget]
    sections: dict[str, list[Row]] = {}
    base = next(iter(choose_baselines(by_budget.assign(variant=by_budget["of"])).values()))
    for epochs, part in by_budget.groupby("epochs"):
        if base not in set(part["of"]):
            continue
        compared = compare_variants(part.assign(variant=part["of"]).drop(columns="of"), base)
        for variant, own in compared.groupby("variant", sort=False):
            differences = {row["metric"]: row for row in own.to_dict("records")}
            cells = [_format_difference(differences.get(metric)) for metric in metrics]
            sections.setdefault(str(variant), []).append(Row(str(variant), (str(epochs), *cells)))
    if not sections:
        return None
    return Table(
        title=f"Differences to {base} at equal budget",
        statement="Variant minus baseline after the same number of epochs, in percentage points, "
        "paired over category and seed, with the 95 % bootstrap interval over categories (of one "
        "category: over seeds).",
        label="variant",
        columns=[Column(("epochs", "")), *(Column((metric_name(m), "points")) for m in metrics)],
        sections=list(sections.values()),
    )


def _format_difference(row: Mapping[Any, Any] | None) -> str:
    if row is None or np.isnan(row["low"]):
        return format_points(None if row is None else row["difference"])
    middle, low, high = (format_points(row[name]) for name in ("difference", "low", "high"))
    return f"{middle} ({low} to {high})"


def _write_figure(
    runs: pd.DataFrame, compared: pd.DataFrame, by_budget: pd.DataFrame, path: Path
) -> list[Path]:
    """The study's figure; without a metric there is none, and an old one is removed."""
    with paper_style():
        figure = _make_figure(runs, compared, by_budget)
        if figure is None:
            path.unlink(missing_ok=True)
            return []
        save = partial(figure.savefig, format="png", dpi=PNG_DPI, metadata={"Software": None})
        return [write_atomically(path, save)]


def _make_figure(
    runs: pd.DataFrame, compared: pd.DataFrame, by_budget: pd.DataFrame
) -> Figure | None:
    metrics = [m for m in HEADLINE if m in runs and runs[m].notna().any()]
    data = runs["data"].iloc[0]
    if not metrics:
        return None
    if len(by_budget):
        return draw_learning_curves(by_budget, metrics, f"Test curves on {data}")
    rows = compared[compared["metric"].isin(metrics)]
    if len(rows):
        return draw_differences(rows, f"Differences to {rows['baseline'].iloc[0]} on {data}")
    title = f"{runs['variant'].iloc[0]} on {data}, {describe_seeds(runs)}"
    return draw_bars(category_table(runs), metrics, title, [])


def draw_learning_curves(by_budget: pd.DataFrame, metrics: Sequence[str], title: str) -> Figure:
    """A row for each category, a panel for each metric, a line for each seed and variant.

    Args:
        by_budget: of `expand_budgets`, at least one row.
        metrics: of the panels.
        title: first line.
    """
    categories = sorted(by_budget["category"].unique())
    variants = list(dict.fromkeys(by_budget["of"]))
    figure = Figure(figsize=(WIDTH, 0.5 + 1.5 * len(categories)))
    panels = figure.subplots(len(categories), len(metrics), sharex=True, squeeze=False)
    handles: dict[str, Any] = {}
    for (variant, category, _), part in by_budget.groupby(["of", "category", "seed"], sort=False):
        index = variants.index(str(variant))
        line = {"color": colour(index), "linestyle": dashes(index), "linewidth": 0.8}
        for axes, metric in zip(panels[categories.index(category)], metrics, strict=True):
            (handles[str(variant)],) = axes.plot(
                part["epochs"], 100 * part[metric], marker=".", markersize=2, **line
            )
    last = int(by_budget["epochs"].max())
    ticks = [*(epochs for epochs in BUDGETS if 1.2 * epochs < last), last]
    for row, category in zip(panels, categories, strict=True):
        row[0].set_ylabel(f"{category}, %")
    for column, metric in enumerate(metrics):
        panels[0][column].set_title(metric_name(metric))
        bottom = panels[-1][column]
        bottom.set_xlabel("epochs")
        bottom.set_xscale("log")
        bottom.set_xticks(ticks, [str(epochs) for epochs in ticks])
        bottom.minorticks_off()
    set_title(figure, title)
    note = "A line for each seed. Test metrics during training, by which nothing was chosen."
    add_legend_and_notes(figure, [note], [handles[variant] for variant in variants], variants)
    return figure
