"""``anomalib-rd study``: what a study is going to run, and what it leaves on record."""

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
        "A study is a question with its budget, conf/study/NAME.yaml. It is run, and resumed, by "
        "`anomalib-rd train -m study=NAME sweep=study-NAME`.",
        "plan masking trainer.max_epochs=20",
        "record multirun/study-masking",
    )
    parts = parser.add_subparsers(required=True, dest="part")
    plan = parts.add_parser(
        "plan", help="compose every job and list them; needs no data, runs none"
    )
    plan.add_argument("name", help="of the study")
    plan.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="overrides, such as trainer.max_epochs=20 seed=0,1",
    )
    record = parts.add_parser("record", help="write results.csv, summary.md and figure.png")
    record.add_argument("sweep", type=Path, help="its folder, such as multirun/study-NAME")
    record.add_argument("--out", type=Path, help="where to write; default: the sweep's folder")
    record.add_argument("--baseline", help="the variant to compare with, as for the report")
    parser.set_defaults(run_action=run)


def run(options: Namespace) -> int:
    """List the jobs of a study, or write its results, summary and figure."""
    if options.part == "plan":
        show_plan(options.name, options.overrides)
        return 0
    from anomalib_rd.reports.study import record_study

    out = options.out or options.sweep
    files = record_study(options.sweep, out, options.baseline)
    print(f"Written to {out}: {', '.join(path.name for path in files)}")
    return 0


def show_plan(name: str, words: list[str]) -> None:
    """Print a line for each job, and how many there are."""
    jobs = planned(name, words)
    for job in jobs:
        print(f"{'complete' if job.complete else 'to run':9} {' '.join(job.overrides)}")
    complete = sum(job.complete for job in jobs)
    print(f"{len(jobs)} jobs, {complete} complete, {len(jobs) - complete} to run")


def planned(name: str, words: list[str]) -> "list[Job]":
    """The jobs of a study, composed as the multirun composes them; nothing is run.

    The data's folder is looked at only where a group of categories is asked for.

    Raises:
        UserError: a value of the wrong type, a category that is not there.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from anomalib_rd.cli.categories import GROUPS, KEY, expand_categories, parsed, values
    from anomalib_rd.cli.config import conf_dir, register_resolvers
    from anomalib_rd.cli.points import register_points
    from anomalib_rd.cli.sweep import list_jobs
    from anomalib_rd.cli.values import check_values
    from anomalib_rd.cli.words import as_typed

    register_resolvers()
    words = as_typed([f"study={name}", f"sweep=study-{name}", *words], many=True)
    register_points(words)
    check_values(words)
    named = {n for o in parsed(words).values() if o.key_or_group == KEY for n in values(o)}
    if named & GROUPS:
        _, *words = expand_categories(["-m", *words])
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        config = hydra.compose_config("train", words, run_mode=RunMode.MULTIRUN)
        jobs = list_jobs(config)
    if jobs is None:
        raise UserError(f"study={name}: a search's jobs are not known in advance")
    return jobs
