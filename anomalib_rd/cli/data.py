"""``anomalib-rd data``: list, check and download data sets, and manage the image cache."""

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_rd.cli.common import Parser
from anomalib_rd.errors import UserError
from anomalib_rd.reports.formatting import format_bytes, format_count

if TYPE_CHECKING:
    from rich.table import Table

    from anomalib_rd.data.dataset_check import CategoryCheck, Counts, Finding
    from anomalib_rd.data.sources.source import Source

NUMBERS = {"train", "test", "test good", "test defect", "masks", "published", "images"}
"""Columns of numbers."""
PRINTED_FINDINGS = 20
"""Findings printed per category and severity; the others are counted."""


def add_arguments(parser: Parser) -> None:
    """Add the subcommands and their options."""
    parser.describe(
        "List, check or download data sets; show or clear the cache of decoded images.",
        "list data=mvtec",
        "check data=mvtec data.category=bottle,cable",
        "download --root data/mvtec --accept-license",
        "cache --clear",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, action: Any, summary: str) -> Any:
        subparser = commands.add_parser(name, help=summary, description=summary)
        subparser.set_defaults(run_action=action, parser=subparser)
        return subparser

    listing = add("list", list_categories, "list categories, image counts and defect types")
    check = add(
        "check",
        check_categories,
        "decode every image and mask; find errors, leaks and duplicates; exit status 2 on errors",
    )
    for subparser in (listing, check):
        subparser.add_argument(
            "overrides",
            nargs="*",
            metavar="KEY=VALUE",
            help="as for train; default: all categories",
        )
    check.add_argument("--json", action="store_true", help="print JSON")
    download = add("download", download_data, "download MVTec AD (5.3 GB, resumable)")
    download.add_argument(
        "--root", type=Path, default=Path("data/mvtec"), help="target folder (default: %(default)s)"
    )
    download.add_argument(
        "--accept-license",
        action="store_true",
        help="accept the licence, CC BY-NC-SA 4.0 (printed without this flag)",
    )
    download.add_argument("--url", help="download link, if the default has moved")
    download.add_argument("--keep", action="store_true", help="keep the archive after unpacking")
    cache = add("cache", manage_cache, "show the cache folder and its size, or clear it")
    cache.add_argument("--clear", action="store_true", help="remove the decoded images")


def list_categories(options: Namespace) -> int:
    """Print a table of the categories, or of those that the overrides name."""
    from rich.console import Console

    from anomalib_rd.data.sources.source import select_categories
    from anomalib_rd.data.sources.unused_files import find_unused

    source, wanted, _ = _select_data(options.overrides)
    notes: list[str] = []
    rows = []
    for category in select_categories(source, wanted or "all"):
        split = source.split(category)
        defects = Counter(sample.defect for sample in split.test)
        notes += [f"{category}: {kind.text}" for kind in find_unused(source, category, split)]
        rows.append(
            [
                category,
                "texture" if category in source.textures else "object",
                str(len(split.train)),
                str(len(split.test)),
                ", ".join(f"{defect} ({count})" for defect, count in defects.items()),
            ]
        )
    headings = ("category", "group", "train", "test", "defect types (images)")
    Console().print(make_table(str(source.root), headings, rows))
    for note in notes:
        print(note)
    return 0


def check_categories(options: Namespace) -> int:
    """Check the categories that the overrides name, or all, and print the findings.

    Returns:
        The exit status: 2 if there are errors, else 0.
    """
    from anomalib_rd.data.dataset_check import ERROR, find_missing_categories
    from anomalib_rd.data.sources.source import select_categories

    source, wanted, mask_rule = _select_data(options.overrides)
    available = source.categories()
    results = [*_check_each(source, select_categories(source, wanted or "all"), mask_rule)]
    findings = [finding for result in results for finding in result.findings]
    findings += [] if wanted else find_missing_categories(source, available)
    if options.json:
        print(json.dumps(_as_json(source.root, results, findings), indent=2))
    else:
        _print_check(source.root, results, findings)
    return 2 if any(finding.severity == ERROR for finding in findings) else 0


def _select_data(overrides: list[str]) -> tuple["Source", list[str], str]:
    """The data set, the categories of the overrides (empty: all), and the mask rule."""
    from hydra.utils import instantiate

    from anomalib_rd.cli.config import compose_config, parse_overrides, register_resolvers
    from anomalib_rd.cli.overrides import CATEGORY, category_names, quote_overrides
    from anomalib_rd.data.mask_rules import check_mask_rule

    register_resolvers()
    overrides = quote_overrides(overrides, multirun=False)
    given = {
        index: o for index, o in parse_overrides(overrides).items() if o.key_or_group == CATEGORY
    }
    data = compose_config([o for i, o in enumerate(overrides) if i not in given]).data
    check_mask_rule(data.mask_rule)
    source: Source = instantiate(data.source)
    return source, category_names(list(given.values())[-1]) if given else [], data.mask_rule


def _check_each(source: "Source", names: list[str], mask_rule: str) -> Iterator["CategoryCheck"]:
    """Check the categories, with a progress bar on a terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    from anomalib_rd.data.dataset_check import check_category

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        for name in names:
            task = bars.add_task(escape(name), total=None)

            def advance(done: int, total: int, task: TaskID = task) -> None:
                bars.update(task, completed=done, total=total)

            yield check_category(source, name, advance, mask_rule)
            bars.remove_task(task)


def _print_check(root: Path, results: list["CategoryCheck"], findings: list["Finding"]) -> None:
    """Print the tables, then a line for each finding."""
    from rich.console import Console

    from anomalib_rd.results.files import printable

    headings = ("category", "train", "test good", "test defect", "masks", "published", "found")
    formats = [
        (result.category, f"{width} x {height}", mode, str(count))
        for result in results
        for (width, height, mode), count in result.formats.most_common()
    ]
    console = Console()
    console.print(make_table(str(root), headings, map(_counts_row, results)))
    title = "stored sizes and modes, upright"
    console.print(make_table(title, ("category", "size", "mode", "images"), formats))
    for result in results:
        kinds = {
            "every value above the background": result.masks - result.soft_masks,
            "soft edges, values above half of white": result.soft_masks,
        }
        parts = [f"{count} by {rule}" for rule, count in kinds.items() if count]
        if parts:
            print(f"{result.category}: masks read {', '.join(parts)} (data.mask_rule)")
    printed: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        printed[finding.category, finding.severity] += 1
        if printed[finding.category, finding.severity] <= PRINTED_FINDINGS:
            # Not by rich, which would wrap paths.
            print(f"{finding.severity}: {printable(finding.text)}")
    for (category, severity), count in printed.items():
        if count > PRINTED_FINDINGS:
            print(f"{severity}: {category}: {count - PRINTED_FINDINGS} more; --json lists all")
    print(_count_severities(findings) or "nothing found")


def _counts_row(result: "CategoryCheck") -> list[str]:
    """Name, image counts on disk, published counts, and number of findings."""
    published = " / ".join(map(str, _count_values(result.published))) or "-"
    return [
        result.category,
        *([str(count) for count in _count_values(result.counts)] or ["?", "?", "?"]),
        "?" if result.counts is None else str(result.masks),
        "same" if result.published and result.counts == result.published else published,
        _count_severities(result.findings) or "-",
    ]


def make_table(title: str, headings: Sequence[str], rows: Iterable[Iterable[str]]) -> "Table":
    """A table for the terminal; numbers are right-justified."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in NUMBERS else "left")
    for row in rows:
        table.add_row(*map(Text, row))  # Text: names may contain rich's markup
    return table


def _count_values(counts: "Counts | None") -> tuple[int, ...]:
    """Training, normal test and defect images; empty if they could not be counted."""
    return () if counts is None else (counts.train, counts.good, counts.defect)


def _count_severities(findings: list["Finding"]) -> str:
    """Such as ``1 error, 2 warnings``."""
    from anomalib_rd.data.dataset_check import SEVERITIES

    totals = Counter(finding.severity for finding in findings)
    counts = [(totals[severity], severity) for severity in SEVERITIES if totals[severity]]
    return ", ".join(f"{n} {severity}{'' if n == 1 else 's'}" for n, severity in counts)


def _as_json(
    root: Path, results: list["CategoryCheck"], findings: list["Finding"]
) -> dict[str, Any]:
    """The complete check, for scripts."""
    from anomalib_rd.results.files import printable

    keys = ("train", "good", "defect")
    return {
        "root": str(root),
        "categories": [
            {
                "category": result.category,
                "counts": dict(zip(keys, _count_values(result.counts), strict=False)) or None,
                "published": dict(zip(keys, _count_values(result.published), strict=False)) or None,
                "masks": result.masks,
                "soft_masks": result.soft_masks,
                "formats": [
                    {"width": width, "height": height, "mode": mode, "images": count}
                    for (width, height, mode), count in result.formats.most_common()
                ],
            }
            for result in results
        ],
        "findings": [
            {
                "severity": finding.severity,
                "category": finding.category or None,
                "path": finding.path and printable(finding.path),
                "text": printable(finding.text),
            }
            for finding in findings
        ],
    }


def download_data(options: Namespace) -> int:
    """Download MVTec AD."""
    from anomalib_rd.data.download import MVTEC_URL, download_mvtec

    download_mvtec(
        options.root,
        accept_license=options.accept_license,
        url=options.url or MVTEC_URL,
        keep=options.keep,
    )
    return 0


def manage_cache(options: Namespace) -> int:
    """Print the folder and size of the cache, or remove the decoded images."""
    from anomalib_rd.data.disk_cache import cache_folder, open_image_store
    from anomalib_rd.data.sources.demo import VERSION

    store = open_image_store()
    if not options.clear:
        demo = (cache_folder() / VERSION).rglob("*")
        sizes = [path.stat().st_size for path in demo if path.is_file()]
        print(cache_folder())
        print(f"  decoded images  {_describe_files(*store.usage())}")
        print(f"  demo data set   {_describe_files(len(sizes), sum(sizes))}")
        return 0
    try:
        removed = store.clear()
    except OSError as error:
        raise UserError(
            f"cannot remove {error.filename or store.folder}: {error.strerror or error};"
            " clear the cache as the user who owns it"
        ) from error
    print(f"removed decoded images from {store.folder}: {_describe_files(*removed)}")
    return 0


def _describe_files(files: int, size: int) -> str:
    """Such as ``2 files, 1.5 MiB``; ``size`` is in bytes."""
    return f"{format_count(files, 'file')}, {format_bytes(size)}"
