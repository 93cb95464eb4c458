"""The files of a study on record."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from anomalib_rd.errors import UserError
from anomalib_rd.reports.comparison_table import comparison_table
from anomalib_rd.reports.figures.charts import draw_bars, draw_differences
from anomalib_rd.reports.figures.style import PNG_DPI, WIDTH, colour, dashes, foot, heading, style
from anomalib_rd.reports.formatting import MISSING
from anomalib_rd.reports.layout import Column, Document, Notes, Row, Table
from anomalib_rd.reports.render import to_markdown
from anomalib_rd.reports.tables import (
    HEADINGS,
    HEADLINE,
    metric_name,
    overview_table,
    variant_table,
)
from anomalib_rd.results.files import one_line, write_atomically
from anomalib_rd.results.published import DATA, MVTEC_AD, Published, load_published
from anomalib_rd.results.record import find_failures, parent_run, read_record
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
from anomalib_rd.results.table import (
    ORACLE,
    RUN_COLUMNS,
    category_table,
    drop_repeats,
    load_runs,
    metric_columns,
    write_csv,
)

BUDGETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_EPOCHS = re.compile(r" (?:trainer\.)?max_epochs=\S+")


def budgets(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs' points of the test curve, and of all runs the last epoch.

    Args:
        runs: of `load_runs`; their records are read again.

    Returns:
        Rows as of `load_runs`, one for each variant, category, seed and epoch: ``of`` is the
        variant without its number of epochs, ``variant`` the same with the point's. No row where
        no run has a test curve. ``oracle_`` columns and durations are of whole runs: left out.

    Raises:
        UserError: a record that cannot be read.
    """
    metrics = metric_columns(runs)
    rows: list[dict[str, Any]] = []
    curves = 0
    whole = drop_repeats(runs).drop(columns=[c for c in runs if str(c).startswith(ORACLE)])
    for run in whole.to_dict("records"):
        record = read_record(run["run"])
        if record["config"].get("scheduler"):
            continue
        points = {int(point["epoch"]): point for point in record["test_curve"]}
        curves += bool(points)
        points[run["epochs"]] = {m: run[m] for m in metrics}
        of = _EPOCHS.sub("", run["variant"])
        for epoch, point in points.items():
            row = {str(name): value for name, value in run.items() if name not in metrics}
            row |= {"of": of, "variant": with_budget(of, epoch), "epochs": epoch}
            row |= {"total_s": float("nan"), "train_s": float("nan")}
            rows.append(row | {m: point.get(m, float("nan")) for m in metrics})
    table = pd.DataFrame(rows if curves else [], columns=[*whole.columns, "of"])
    return table.sort_values(["of", "epochs"], kind="stable", ignore_index=True)


def with_budget(variant: str, epochs: int) -> str:
    """The label of a variant after so many epochs."""
    return f"{variant} epochs={epochs}"


def tabled(budgeted: pd.DataFrame) -> pd.DataFrame:
    """Of the rows of `budgets` those of round numbers of epochs, and each variant's last."""
    last = budgeted.groupby("of")["epochs"].transform("max")
    return budgeted[budgeted["epochs"].isin(BUDGETS) | (budgeted["epochs"] == last)]


def learning_curves(budgeted: pd.DataFrame, metrics: Sequence[str], title: str) -> Figure:
    """A row for each category, a panel for each metric; a line for each seed and variant.

    Args:
        budgeted: of `budgets`, at least one row.
        metrics: a panel each.
        title: a line at the top.
    """
    categories = sorted(budgeted["category"].unique())
    variants = list(dict.fromkeys(budgeted["of"]))
    figure = Figure(figsize=(WIDTH, 0.5 + 1.5 * len(categories)))
    panels = figure.subplots(len(categories), len(metrics), sharex=True, squeeze=False)
    handles: dict[str, Any] = {}
    for (variant, category, _), part in budgeted.groupby(["of", "category", "seed"], sort=False):
        position = variants.index(str(variant))
        for axes, metric in zip(panels[categories.index(category)], metrics, strict=True):
            (handles[str(variant)],) = axes.plot(
                part["epochs"],
                100 * part[metric],
                color=colour(position),
                linestyle=dashes(position),
                marker=".",
                markersize=2,
                linewidth=0.8,
            )
    for row, category in zip(panels, categories, strict=True):
        row[0].set_ylabel(f"{category}, %")
    for column, metric in enumerate(metrics):
        panels[0][column].set_title(heading(metric))
        panels[-1][column].set_xlabel("epochs")
        panels[-1][column].set_xscale("log")
        last = int(budgeted["epochs"].max())
        marks = [*(epochs for epochs in BUDGETS if 1.2 * epochs < last), last]
        panels[-1][column].set_xticks(marks, [str(epochs) for epochs in marks])
        panels[-1][column].minorticks_off()
    figure.suptitle(title, fontsize=7, x=0.01, ha="left")
    notes = ["A line for each seed. A look at the test set, by which nothing was chosen."]
    foot(figure, notes, [handles[variant] for variant in variants], variants)
    return figure


HASH = 8  # digits
_FOLDER = re.compile(r"(?<==)('?)/[^\s,]*/")


def facts(sweep: Path, runs: pd.DataFrame) -> list[str]:
    """Lines of a Markdown list; what differs between runs is said with all its values.

    Args:
        sweep: its folder.
        runs: of `load_runs`.

    Raises:
        UserError: a file that cannot be read.
    """
    records = [read_record(run) for run in runs["run"]]
    whole = runs.loc[~runs["run"].map(parent_run).duplicated()]
    prints = runs[["category", "fingerprint"]].drop_duplicates().sort_values("category")
    images = {r["data"]["category"]: r["data"].get("train_images") for r in records}
    data = ", ".join(
        f"{category} ({images[category]} training images, {str(fingerprint)[:HASH]})"
        for category, fingerprint in prints.itertuples(index=False)
    )
    lines = {
        "Runs": f"{len(whole)}; {whole['total_s'].sum() / 3600:.1f} hours in all, "
        f"{whole['total_s'].median() / 60:.1f} minutes each (median)",
        "Budget": f"{_values(runs['epochs'])} epochs, {_values(runs['image_size'])} pixels, "
        f"seeds {_values(runs['seed'])}",
        "Teacher": _values(runs["teacher"]),
        "Data": f"{_values(runs['data'])}: {data}",
        "Validation": _values(_validation(record) for record in records),
        "Machine": _values(_machine(record) for record in records),
        "Software": _values(_software(record) for record in records),
        "Commit": _values(_commit(record) for record in records),
    }
    # A path is of one machine; what it ends in says enough.
    commands = [_FOLDER.sub(r"\1.../", c["command"]) for c in read_commands(sweep)]
    lines |= {"Command": " and ".join(f"`{c}`" for c in commands)} if commands else {}
    return [f"- {name}: {text}" for name, text in lines.items()]


def _values(values: Iterable[Any]) -> str:
    return "; ".join(str(value) for value in dict.fromkeys(values))


def _validation(record: dict[str, Any]) -> str:
    held_out = record["protocol"].get("validation")
    if not held_out:
        return "none, all normal images train"
    return f"{held_out['kind']}, {held_out['share']:.0%} of the normal training images held out"


def _machine(record: dict[str, Any]) -> str:
    hardware = record.get("provenance", {}).get("hardware") or {}
    cpu = f"{hardware.get('cores', '?')} cores of {hardware.get('cpu') or 'an unknown CPU'}"
    return f"{hardware['accelerator']}, {cpu}" if hardware.get("accelerator") else cpu


def _software(record: dict[str, Any]) -> str:
    software = record.get("provenance", {}).get("software") or {}
    return ", ".join(f"{name} {software.get(name, '?')}" for name in ("python", "torch", "timm"))


def _commit(record: dict[str, Any]) -> str:
    git = record.get("provenance", {}).get("git")
    if not git:
        return "unknown"
    return git["commit"][:HASH] + (" with changes not committed" if git["dirty"] else "")


AGREEMENT = [
    Column(("metric", "")),
    Column(("Spearman's", "rho")),
    Column(("p", "(permutation)", "")),
    Column(("variants", "")),
    Column(("runs", "of each", "")),
]
SEEDS = (2, 3, 5, 10)


def agreement_table(agreement: pd.DataFrame) -> Table:
    """Does the validation rank the variants as the test does?

    Args:
        agreement: rows of `rank_agreement` of one data.
    """
    notes = Notes()
    rows = []
    for row in agreement.to_dict("records"):
        why = ""
        if np.isnan(row["rho"]):
            few = f"fewer than {MIN_VARIANTS} variants have both: no rank correlation"
            why = notes.add(
                few if row["n"] < MIN_VARIANTS else "all variants are equal in one of both"
            )
        rho, p = _number(row["rho"], "+.2f") + why, _number(row["p"], ".3f")
        name = metric_name(row["metric"])
        rows.append(Row(row["category"], (name, rho, p, str(row["n"]), str(row["n_runs"]))))
    statement = (
        "Rank correlation over the variants, between the metric on held-out training images with "
        "synthetic defects and the same metric on the test images; +1: the same order."
    )
    remark = (
        "The variants' values are means over the categories and seeds that all of them have. p: "
        "two-sided, of no correlation. Neighbours in rank may differ by less than noise."
    )
    title = "Does the synthetic validation rank as the test does?"
    return Table(title, statement, "category", AGREEMENT, [rows], notes, [remark])


def spread_table(runs: pd.DataFrame) -> Table:
    """What differs by the seed alone, and from which difference on so many seeds would show it.

    Args:
        runs: of `load_runs`, one data and variant, at least 2 seeds.
    """
    notes, rows = Notes(), []
    counts = np.array([SEEDS, SEEDS])
    for metric in [m for m in HEADLINE if m in runs]:
        values = drop_repeats(runs).pivot(index="seed", columns="category", values=metric)
        means = values.dropna(axis=1, how="all").dropna().mean(axis=1)
        if len(means) < 2 or np.ptp(means) == 0:
            few = "fewer than 2 seeds have every category"
            why = notes.add(few if len(means) < 2 else "the same with every seed")
            rows.append(Row(metric_name(metric), (MISSING + why, *[MISSING] * (1 + len(SEEDS)))))
            continue
        variance = means.var(ddof=1)
        least, most = (100 * variance**0.5 * factor for factor in spread_factors(len(means)))
        shown = 100 * smallest_difference(np.array([variance, variance]), counts)
        cells = [f"{100 * variance**0.5:.2f}", f"{least:.2f} to {most:.2f}"]
        rows.append(Row(metric_name(metric), (*cells, *(f"{value:.2f}" for value in shown))))
    columns = [Column(("std over seeds", "points")), Column(("true std, 95 %", "points"))]
    columns += [Column((f"{n} seeds each show from", "points")) for n in SEEDS]
    seeds, categories = runs["seed"].nunique(), runs["category"].nunique()
    statement = (
        f"Spread of the mean over {categories} {'category' if categories == 1 else 'categories'} "
        f"between {seeds} seeds, and the smallest true difference of two variants with this spread "
        "that a two-sided t-test (alpha 0.05) finds 4 times in 5."
    )
    return Table("What the seed alone does", statement, "metric", columns, [rows], notes, [])


def equal_budget_table(budgeted: pd.DataFrame) -> Table | None:
    """The variants against the baseline after the same number of epochs: who converges faster?

    Args:
        budgeted: of `budgets`, one data.

    Returns:
        None where there is one variant.
    """
    metrics = [m for m in HEADLINE if m in budgeted]
    sections: dict[str, list[Row]] = {}
    base = next(iter(choose_baselines(budgeted.assign(variant=budgeted["of"])).values()))
    for epochs, part in budgeted.groupby("epochs"):
        if base not in set(part["of"]):
            continue
        compared = compare_variants(part.assign(variant=part["of"]).drop(columns="of"), base)
        for variant, own in compared.groupby("variant", sort=False):
            of_metric: dict[str, dict[Any, Any]] = {r["metric"]: r for r in own.to_dict("records")}
            cells = [_with_interval(of_metric.get(metric)) for metric in metrics]
            sections.setdefault(str(variant), []).append(Row(str(variant), (str(epochs), *cells)))
    if not sections:
        return None
    columns = [Column(("epochs", "")), *(Column((HEADINGS[m].name, "points")) for m in metrics)]
    statement = (
        "Each variant less the baseline after as many epochs, in percentage points, paired over "
        "category and seed, with the 95 % bootstrap interval over categories (of one: over seeds)."
    )
    title = f"Differences to {base} at equal budget"
    return Table(title, statement, "variant", columns, list(sections.values()), Notes(), [])


def _with_interval(row: dict[str, Any] | None) -> str:
    if row is None or np.isnan(row["difference"]):
        return MISSING
    middle, low, high = (f"{100 * row[name]:+.2f}" for name in ("difference", "low", "high"))
    return middle if np.isnan(row["low"]) else f"{middle} ({low} to {high})"


def _number(value: float, form: str) -> str:
    return MISSING if np.isnan(value) else format(value, form)


RESULTS, SUMMARY, FIGURE = "results.csv", "summary.md", "figure.png"
COMPARISONS = "comparisons.csv"
# Of a run's columns: what a table on record says of it; its metrics follow.
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


def record_study(sweep: Path, out: Path, baseline: str | None = None) -> list[Path]:
    """Writes ``results.csv``, ``summary.md`` and ``figure.png`` of a sweep, each atomically.

    If there are several variants, ``comparisons.csv`` too: all rows of `compare_variants`.

    ``results.csv`` has one row for each run: `DESCRIPTION` (``run`` below the sweep's folder),
    the metrics on the test images, those of the validation as ``val/<metric>``, and what the
    test curve's best epoch would have given as ``oracle_<metric>``; fractions.

    Args:
        sweep: its folder.
        out: the study's folder, made if it does not exist.
        baseline: the variant that the others are compared with; see `compare_variants`.

    Returns:
        The files' paths.

    Raises:
        UserError: no complete run, no such baseline, runs on several data sets, a file that
            cannot be read, or a folder that cannot be written.
    """
    runs = load_runs([sweep])
    if runs["data"].nunique() > 1:
        raise UserError(
            f"{sweep}: runs on {', '.join(runs['data'].unique())}; a study has one data"
        )
    validated = validation_metrics(runs)
    budgeted = budgets(runs)
    compared = compare_variants(runs, baseline)
    tables = [*_tables(runs, compared, validated), *_budget_tables(tabled(budgeted))]
    failed = [f"{path.relative_to(sweep)}: {failure_reason(path)}" for path in find_failures(sweep)]
    text = "\n".join([*facts(sweep, runs), "", to_markdown(Document(tables, failed))])
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [
            write_csv(_one_row_each(runs, validated, sweep), out / RESULTS),
            write_atomically(out / SUMMARY, lambda file: file.write(text.encode())),
            *([write_csv(compared, out / COMPARISONS)] if len(compared) else []),
            *_draw(runs, compared, budgeted, out / FIGURE),
        ]
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({one_line(error)}); give another --out") from (
            error
        )


def _one_row_each(runs: pd.DataFrame, validated: pd.DataFrame, sweep: Path) -> pd.DataFrame:
    table = runs.drop(columns=[name for name in RUN_COLUMNS if name not in DESCRIPTION])
    metrics = [name for name in table.columns if name not in DESCRIPTION]
    table = table[[*DESCRIPTION, *metrics]].join(validated)
    below = [Path(run).relative_to(sweep).as_posix() for run in runs["run"]]
    # Floats as the records have them: a column of seconds needs no sixteen digits.
    return table.assign(run=below).round({"train_s": 1, "total_s": 1})


def _tables(runs: pd.DataFrame, compared: pd.DataFrame, validated: pd.DataFrame) -> Iterator[Table]:
    summary, beside = category_table(runs), _published(runs)
    if runs["variant"].nunique() > 1:
        yield overview_table(runs, summary, beside)
        differences = compared[compared["metric"].isin(HEADLINE)]
        if len(differences):
            yield comparison_table(differences)
    else:
        yield variant_table(runs, summary, beside, with_means=True)
        if runs["seed"].nunique() > 1:
            yield spread_table(runs)
    if len(validated.columns) and runs["variant"].nunique() > 1:
        agreement = rank_agreement(runs, validated)
        yield agreement_table(agreement[agreement["metric"].isin(HEADLINE)])


def _published(runs: pd.DataFrame) -> dict[str, Published]:
    """Others' numbers, where they compare: on all of MVTec AD's categories."""
    all_there = runs["data"].iloc[0] == DATA and set(runs["category"]) == MVTEC_AD
    return dict(load_published()) if all_there else {}


def _budget_tables(budgeted: pd.DataFrame) -> Iterator[Table]:
    """What fewer epochs would have given: beside the baseline, and beside the last epoch."""
    equal = equal_budget_table(budgeted) if len(budgeted) else None
    if equal is not None:
        yield equal
    for variant, part in budgeted.groupby("of", sort=False):
        own = part.drop(columns="of")
        yield overview_table(own, category_table(own), {})
        last = with_budget(str(variant), own["epochs"].max())
        differences = compare_variants(own, last)
        differences = differences[differences["metric"].isin(HEADLINE)]
        if len(differences):
            yield comparison_table(differences)


def _draw(
    runs: pd.DataFrame, compared: pd.DataFrame, budgeted: pd.DataFrame, path: Path
) -> list[Path]:
    """The one figure that the study is about; none, and an old one removed, without a metric."""
    with style():
        figure = _figure(runs, compared, budgeted)
        if figure is None:
            path.unlink(missing_ok=True)
            return []
        save = partial(figure.savefig, format="png", dpi=PNG_DPI, metadata={"Software": None})
        return [write_atomically(path, save)]


def _figure(runs: pd.DataFrame, compared: pd.DataFrame, budgeted: pd.DataFrame) -> Figure | None:
    shown = [m for m in HEADLINE if m in runs and runs[m].notna().any()]
    data, seeds = runs["data"].iloc[0], runs["seed"].nunique()
    if not shown:
        return None
    if len(budgeted):
        return learning_curves(budgeted, shown, f"Test curves on {data}")
    rows = compared[compared["metric"].isin(shown)]
    if len(rows):
        return draw_differences(rows, shown, f"Differences to {rows['baseline'].iloc[0]} on {data}")
    over = f"mean ± std over {seeds} seeds" if seeds > 1 else f"seed {runs['seed'].iloc[0]}"
    title = f"{runs['variant'].iloc[0]} on {data}, {over}"
    return draw_bars(category_table(runs), shown, title, [])
