"""``anomalib-rd workspace``: the saved Weights & Biases view of a project's runs."""

import os
from argparse import Namespace
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_rd.cli.common import Parser
from anomalib_rd.errors import UserError

if TYPE_CHECKING:
    from anomalib_rd.tracking.wandb_workspace import Workspace

PROJECT = "anomalib-rd"  # as in conf/logger/wandb.yaml


def add_arguments(parser: Parser) -> None:
    """Add the options of the command."""
    parser.describe(
        "Save a W&B workspace view of a project: categories, means, sweeps, ablations, curves and "
        "images. Each call creates a new view.",
        "multirun/mine",
        "--project my-project --categories bottle,cable --dry-run",
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, help="runs or sweeps with the categories and the project"
    )
    parser.add_argument(
        "--project", help=f"project (default: that of the runs, else WANDB_PROJECT or {PROJECT})"
    )
    parser.add_argument(
        "--entity", help="team or user (default: that of the runs, else WANDB_ENTITY or the login)"
    )
    parser.add_argument(
        "--categories", metavar="A,B", help="default: those of the runs, else MVTec AD's 15"
    )
    parser.add_argument("--name", default=PROJECT, help="name of the view (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="print the definition as YAML")
    parser.set_defaults(run_action=run)


def run(options: Namespace) -> int:
    """Save the view, or with ``--dry-run`` print its definition."""
    workspace = _define(options)
    if options.dry_run:
        import yaml

        print(yaml.safe_dump(_without_none(asdict(workspace)), sort_keys=False), end="")
        return 0
    if find_spec("wandb_workspaces") is None:
        raise UserError(
            'the workspace needs wandb-workspaces: pip install "anomalib-rd[workspace]"; '
            "--dry-run works without it"
        )
    from anomalib_rd.tracking.wandb_workspace import save_workspace

    print(f"W&B: {save_workspace(workspace)}")
    return 0


def _define(options: Namespace) -> "Workspace":
    from anomalib_rd.tracking.wandb_workspace import define_workspace

    project, entity = os.environ.get("WANDB_PROJECT"), os.environ.get("WANDB_ENTITY")
    if options.folders:
        from anomalib_rd.results.runs_table import load_runs
        from anomalib_rd.tracking.sweep_summary import find_destination

        runs = load_runs(options.folders)
        categories = sorted(runs["category"].unique())
        if target := find_destination(runs):
            project, entity = target.project or project, target.entity or entity
    else:
        from anomalib_rd.data.sources.layouts import MVTEC_OBJECTS, MVTEC_TEXTURES

        categories = [*sorted(MVTEC_TEXTURES), *sorted(MVTEC_OBJECTS)]
    if options.categories:
        categories = [name.strip() for name in options.categories.split(",") if name.strip()]
        if not categories:
            raise UserError(f"workspace: --categories {options.categories}: give names, a,b,...")
    return define_workspace(
        options.name, options.project or project or PROJECT, options.entity or entity, categories
    )


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list | tuple) else value
