"""``anomalib-rd workspace``: the saved W&B view of a project's runs."""

import argparse
import os
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_rd.cli.common import Parser
from anomalib_rd.errors import UserError

if TYPE_CHECKING:
    from anomalib_rd.tracking.workspace import Workspace

PROJECT = "anomalib-rd"  # as in conf/logger/wandb.yaml


def run(words: list[str]) -> int:
    """Save the view, or with ``--dry-run`` print its definition."""
    parser = Parser(
        prog="anomalib-rd workspace",
        description="Save a W&B workspace view of a project: categories, means, sweeps, "
        "ablations, curves and images. Each call makes a new view.",
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, help="runs or sweeps whose categories and project to take"
    )
    parser.add_argument("--project", help=f"default: the runs', else WANDB_PROJECT or {PROJECT}")
    parser.add_argument("--entity", help="default: the runs', else WANDB_ENTITY or the login's own")
    parser.add_argument("--categories", help="a,b,...; default: the runs', else MVTec AD's 15")
    parser.add_argument("--name", default=PROJECT, help=f"of the view; default: {PROJECT}")
    parser.add_argument("--dry-run", action="store_true", help="print the definition as YAML")
    options = parser.parse_args(words)
    workspace = define(options)
    if options.dry_run:
        import yaml

        print(yaml.safe_dump(plain(workspace), sort_keys=False), end="")
        return 0
    if find_spec("wandb_workspaces") is None:
        raise UserError(
            'the workspace needs wandb-workspaces: pip install "anomalib-rd[workspace]"; '
            "--dry-run goes without"
        )
    from anomalib_rd.tracking.workspace_view import save_workspace

    print(f"W&B: {save_workspace(workspace)}")
    return 0


def define(options: argparse.Namespace) -> "Workspace":
    """The workspace that the options ask for."""
    from anomalib_rd.tracking.workspace import define_workspace

    project, entity = os.environ.get("WANDB_PROJECT"), os.environ.get("WANDB_ENTITY")
    if options.folders:
        from anomalib_rd.results.table import load_runs
        from anomalib_rd.tracking.sweep_summary import find_destination

        runs = load_runs(options.folders)
        categories = sorted(runs["category"].unique())
        if place := find_destination(runs):
            project, entity = place.project or project, place.entity or entity
    else:
        from anomalib_rd.data.sources.layouts import MVTEC_OBJECTS, MVTEC_TEXTURES

        categories = [*sorted(MVTEC_TEXTURES), *sorted(MVTEC_OBJECTS)]
    if options.categories:
        categories = [name.strip() for name in options.categories.split(",") if name.strip()]
        if not categories:
            raise UserError(f"workspace: --categories {options.categories}: names none; say a,b")
    return define_workspace(
        options.name, options.project or project or PROJECT, options.entity or entity, categories
    )


def plain(workspace: "Workspace") -> dict[str, object]:
    """The definition in YAML's types, without what is not set."""

    def cleaned(value: object) -> object:
        if isinstance(value, dict):
            return {key: cleaned(item) for key, item in value.items() if item is not None}
        return [cleaned(item) for item in value] if isinstance(value, list | tuple) else value

    return {key: cleaned(value) for key, value in asdict(workspace).items()}
