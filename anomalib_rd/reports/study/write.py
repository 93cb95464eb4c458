"""The files of a study on record."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from anomalib_rd.errors import UserError
from anomalib_rd.reports.cells import overview_table, variant_table
from anomalib_rd.reports.compared import HEADLINE, comparison_table
from anomalib_rd.reports.figures.bars import bars
from anomalib_rd.reports.figures.forest import forest
from anomalib_rd.reports.figures.style import PNG_DPI, style
from anomalib_rd.reports.layout import Document, Table
from anomalib_rd.reports.markdown import to_markdown
from anomalib_rd.reports.study.budgets import budgets, learning_curves, tabled, with_budget
from anomalib_rd.reports.study.facts import facts
from anomalib_rd.reports.study.tables import agreement_table, equal_budget_table, spread_table
from anomalib_rd.results.files import one_line, write_atomically
from anomalib_rd.results.published import DATA, MVTEC_AD, Published, load_published
from anomalib_rd.results.record import find_failures
from anomalib_rd.results.statistics import compare_variants, rank_agreement, validation_metrics
from anomalib_rd.results.sweeps import failure_reason
from anomalib_rd.results.table import RUN_COLUMNS, category_table, load_runs, write_csv

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
        return forest(rows, shown, f"Differences to {rows['baseline'].iloc[0]} on {data}")
    over = f"mean ± std over {seeds} seeds" if seeds > 1 else f"seed {runs['seed'].iloc[0]}"
    title = f"{runs['variant'].iloc[0]} on {data}, {over}"
    return bars(category_table(runs), shown, title, [])
