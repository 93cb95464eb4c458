"""A workspace's definition as W&B's own objects, and their saving. Needs wandb-workspaces."""

from collections.abc import Callable
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from anomalib_rd.errors import UserError
from anomalib_rd.tracking.wandb_logger import first_line, has_login, wandb_settings
from anomalib_rd.tracking.workspace import CONFIG, EPOCH, Panel, Section, Workspace

# W&B shows ten of each by default: fewer than there are categories.
MOST_RUNS = MOST_BARS = 100


def save_workspace(workspace: Workspace) -> str:
    """Save the workspace as a new view; without an entity under the login's own.

    Returns:
        The view's address.

    Raises:
        UserError: no login, or a server that does not answer or refuses.
    """
    settings = wandb.setup(settings=wandb_settings()).settings
    if not has_login(settings):
        raise UserError("W&B: no login found; `wandb login` before, or look at it with --dry-run")
    view = build_view(workspace)
    try:
        view.entity = workspace.entity or str(wandb.Api().default_entity)
        view.save()
        return str(view.url)
    except Exception as error:  # wandb raises many kinds here: its own, TimeoutError, OSError
        raise UserError(
            f"W&B: the workspace was not saved at {settings.base_url} ({first_line(error)}); "
            "check the network, the login, --entity and --project"
        ) from error


def build_view(workspace: Workspace) -> ws.Workspace:
    """W&B's workspace; nothing is sent."""
    return ws.Workspace(
        entity=workspace.entity or "",
        project=workspace.project,
        name=workspace.name,
        sections=[_section(section) for section in workspace.sections],
        settings=ws.WorkspaceSettings(max_runs=MOST_RUNS),
        runset_settings=ws.RunsetSettings(groupby=[expr.Metric(g) for g in workspace.group_by]),
    )


def _section(section: Section) -> ws.Section:
    panels = [MAKERS[panel.kind](panel) for panel in section.panels]
    return ws.Section(name=section.name, panels=panels, is_open=section.is_open)


def _bars(panel: Panel) -> wr.BarPlot:
    grouped: dict[str, Any] = {"groupby_aggfunc": "mean"}
    if panel.group_by:
        by = _key(panel.group_by, plain=wr.Metric)
        grouped |= {"groupby": by, "groupby_rangefunc": "stddev"}
    return wr.BarPlot(
        title=panel.title,
        metrics=list(panel.keys),
        max_runs_to_show=MOST_RUNS,
        max_bars_to_show=MOST_BARS,
        **grouped,
    )


def _lines(panel: Panel) -> wr.LinePlot:
    return wr.LinePlot(title=panel.title, x=EPOCH, y=list(panel.keys), max_runs_to_show=MOST_RUNS)


def _scatter(panel: Panel) -> wr.ScatterPlot:
    x, y = (_key(key) for key in panel.keys)
    return wr.ScatterPlot(title=panel.title, x=x, y=y)


def _parallel(panel: Panel) -> wr.ParallelCoordinatesPlot:
    columns = [wr.ParallelCoordinatesPlotColumn(metric=_key(key)) for key in panel.keys]
    return wr.ParallelCoordinatesPlot(title=panel.title, columns=columns)


def _media(panel: Panel) -> wr.MediaBrowser:
    return wr.MediaBrowser(title=panel.title, media_keys=list(panel.keys))


def _table(panel: Panel) -> wr.WeavePanelSummaryTable:
    (key,) = panel.keys
    return wr.WeavePanelSummaryTable(table_name=key)


def _chart(panel: Panel) -> wr.CustomChart:
    (key,) = panel.keys
    return wr.CustomChart(
        # Where wandb.plot.bar puts the chart's numbers.
        query={"summaryTable": {"tableKey": f"{key}_table"}},
        chart_name="wandb/bar/v0",
        chart_fields={"label": "bar", "value": "percent"},
        chart_strings={"title": panel.title},
    )


def _key(key: str, plain: Callable[[str], Any] = wr.SummaryMetric) -> Any:
    name = key.removeprefix(CONFIG)
    return plain(key) if name == key else wr.Config(name)


MAKERS: dict[str, Callable[[Panel], Any]] = {
    "bars": _bars,
    "lines": _lines,
    "scatter": _scatter,
    "parallel": _parallel,
    "media": _media,
    "table": _table,
    "chart": _chart,
}
