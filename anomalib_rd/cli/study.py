"""``anomalib-rd study``: list the jobs of a study, or write its results, summary and figure."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_rd.cli.common import Parser
from anomalib_rd.errors import UserError

if TYPE_CHECKING:
    from anomalib_rd.cli.sweep import Job


def add_arguments(parser: Parser) -> None:
    """Add the options of the command."""
    parser.describe(
        "A study is a question with its variants and budget, conf/study/NAME.yaml. Run or resume "
        "it with `anomalib-rd train -m study=NAME sweep=study-NAME`.",
        "plan mask trainer.max_epochs=20",
        "record multirun/study-mask",
    )
    parts = parser.add_subparsers(required=True, dest="part")
    plan = parts.add_parser("plan", help="list the jobs; needs no data and runs none")
    plan.add_argument("name", help="name of the study")
    plan.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="overrides, such as trainer.max_epochs=20 seed=0,1",
    )
    record = parts.add_parser("record", help="write results.csv, summary.md and figure.png")
    record.add_argument(
        "sweep", type=Path, help="folder of its multirun, such as multirun/study-NAME"
    )
    record.add_argument("--out", type=Path, help="output folder (default: the multirun's)")
    record.add_argument("--baseline", help="variant to compare with, as in the report")
    parser.set_defaults(run_action=run)


def run(options: Namespace) -> int:
    """List the jobs of a study, or write its results, summary and figure."""
    if options.part == "plan":
        jobs = list_study_jobs(options.name, options.overrides)
        for job in jobs:
            print(f"{'complete' if job.complete else 'to run':9} {' '.join(job.overrides)}")
        complete = sum(job.complete for job in jobs)
        print(f"{len(jobs)} jobs, {complete} complete, {len(jobs) - complete} to run")
        return 0
    from anomalib_rd.reports.study import record_study

    out = options.out or options.sweep
    files = record_study(options.sweep, out, options.baseline)
    print(f"Written to {out}: {', '.join(path.name for path in files)}")
    return 0


def list_study_jobs(name: str, arguments: list[str]) -> "list[Job]":
    """The jobs of a study, composed as in its multirun.

    The data's folder is read only for a group of categories.

    Raises:
        UserError: a value of the wrong type, an unknown category, a search.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from anomalib_rd.cli.config import conf_dir, parse_overrides, register_resolvers
    from anomalib_rd.cli.override_checks import check_overrides
    from anomalib_rd.cli.overrides import (
        CATEGORY,
        CATEGORY_GROUPS,
        category_names,
        expand_categories,
        quote_overrides,
        register_points,
    )
    from anomalib_rd.cli.sweep import list_jobs

    register_resolvers()
    arguments = [f"study={name}", f"sweep=study-{name}", *arguments]
    arguments = quote_overrides(arguments, multirun=True)
    register_points(arguments)
    check_overrides(arguments)
    given = [o for o in parse_overrides(arguments).values() if o.key_or_group == CATEGORY]
    if CATEGORY_GROUPS & {name for override in given for name in category_names(override)}:
        _, *arguments = expand_categories(["-m", *arguments])
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        jobs = list_jobs(hydra.compose_config("train", arguments, run_mode=RunMode.MULTIRUN))
    if jobs is None:
        raise UserError(f"study={name}: the jobs of a search are not known in advance")
    return jobs
