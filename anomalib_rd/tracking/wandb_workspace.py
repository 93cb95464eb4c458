"""A saved W&B workspace for a project's runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from anomalib_rd.errors import UserError
from anomalib_rd.tracking import keys

if TYPE_CHECKING:
    import wandb_workspaces.workspaces as ws

CONFIG = "config."
GROUP, JOB_TYPE = "Group", "JobType"  # W&B's names of the columns to group runs by
# W&B displays ten of each by default, but MVTec AD has 15 categories.
MAX_RUNS = MAX_BARS = 100

# Config keys that ablations vary. Runs without the key form a separate group.
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
        title: heading of the panel.
        keys: logged keys, or ``config.`` and a key of the config.
        group_by: bars are means over runs with equal values of this key; None: over the groups of
            the workspace.
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
    """The workspace of a project with the runs of `anomalib-rd train`.

    Its list of runs includes the summary runs of sweeps. These are separate groups by job type, and
    share no key with the panels of other runs.
    """
    headline = keys.HEADLINE
    per_category = [
        Panel("bars", f"{metric} of each category", tuple(f"{c}/{metric}" for c in categories))
        for metric in headline
    ]
    means = [
        Panel("bars", f"{metric} by {label}", (f"test/{metric}",), group_by)
        for label, group_by in (("sweep", GROUP), *VARIED.items())
        for metric in headline
    ]
    count = 2 * len(headline)  # by sweep and by model; the others are ablations
    sweeps = [
        Panel("table", "categories, %", (keys.CATEGORIES,)),
        Panel("table", "differences", (keys.DIFFERENCES,)),
        *(Panel("chart", f"{metric}, %", (keys.bars(metric),)) for metric in headline),
        Panel("media", "heatmaps of a sweep", (keys.HEATMAPS,)),
    ]
    ablation = [
        *means[count:],
        Panel("scatter", "image AUROC and AUPRO", ("test/image_auroc", "test/aupro")),
        Panel("parallel", "settings and image AUROC", AXES),
    ]
    curves = [f"{stage}/{metric}" for stage in ("val", "test_curve") for metric in headline]
    images = [
        Panel("media", "examples with prediction and ground truth", (keys.EXAMPLES,)),
        Panel("media", "anomaly maps", (keys.MAPS,)),
        Panel("table", "all test images", (keys.IMAGES,)),
    ]
    sections = (
        Section("Categories", tuple(per_category), is_open=True),
        Section("Means over runs", tuple(means[:count]), is_open=True),
        Section("Sweeps", tuple(sweeps), is_open=True),
        Section("Ablation", tuple(ablation)),
        Section("Training", tuple(Panel("lines", key, (key,)) for key in ("train/loss", *curves))),
        Section("Images", tuple(images)),
    )
    return Workspace(name, project, entity, (GROUP, JOB_TYPE), sections)


def save_workspace(workspace: Workspace) -> str:
    """Save the workspace as a new view, by default for the entity of the login.

    Requires wandb-workspaces.

    Returns:
        The URL of the view.

    Raises:
        UserError: no login, or the server does not answer or refuses.
    """
    import wandb

    from anomalib_rd.tracking.wandb_runs import first_line, has_login, wandb_settings

    settings = wandb.setup(settings=wandb_settings()).settings
    if not has_login(settings):
        raise UserError("W&B: no login found; run `wandb login`, or use --dry-run")
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


def build_view(workspace: Workspace) -> "ws.Workspace":
    """The workspace as an object of wandb-workspaces, without contacting the server."""
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr

    return ws.Workspace(
        entity=workspace.entity or "",
        project=workspace.project,
        name=workspace.name,
        sections=[
            ws.Section(
                name=section.name,
                panels=list(map(_build_panel, section.panels)),
                is_open=section.is_open,
            )
            for section in workspace.sections
        ],
        settings=ws.WorkspaceSettings(max_runs=MAX_RUNS),
        runset_settings=ws.RunsetSettings(groupby=[expr.Metric(g) for g in workspace.group_by]),
    )


def _build_panel(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2 as wr

    def value(key: str) -> Any:
        name = key.removeprefix(CONFIG)
        return wr.SummaryMetric(key) if name == key else wr.Config(name)

    title = panel.title
    names: list[Any] = list(panel.keys)
    match panel.kind:
        case "bars":
            grouping: dict[str, Any] = {"groupby_aggfunc": "mean"}
            if panel.group_by == GROUP:
                grouping |= {"groupby": wr.Metric(GROUP), "groupby_rangefunc": "stddev"}
            elif panel.group_by:
                grouping |= {"groupby": value(panel.group_by), "groupby_rangefunc": "stddev"}
            return wr.BarPlot(
                title=title,
                metrics=names,
                max_runs_to_show=MAX_RUNS,
                max_bars_to_show=MAX_BARS,
                **grouping,
            )
        case "lines":
            return wr.LinePlot(title=title, x="epoch", y=names, max_runs_to_show=MAX_RUNS)
        case "scatter":
            return wr.ScatterPlot(title=title, x=value(names[0]), y=value(names[1]))
        case "parallel":
            columns = [wr.ParallelCoordinatesPlotColumn(metric=value(key)) for key in names]
            return wr.ParallelCoordinatesPlot(title=title, columns=columns)
        case "media":
            return wr.MediaBrowser(title=title, media_keys=names)
        case "table":
            return wr.WeavePanelSummaryTable(table_name=names[0])
        case "chart":
            return wr.CustomChart(
                # Where wandb.plot.bar stores the chart's numbers.
                query={"summaryTable": {"tableKey": f"{names[0]}_table"}},
                chart_name="wandb/bar/v0",
                chart_fields={"label": "bar", "value": "percent"},
                chart_strings={"title": title},
            )
