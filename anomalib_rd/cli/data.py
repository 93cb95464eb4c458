"""``anomalib-rd data``: list, check and download data sets, and manage the cache."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from anomalib_rd.cli.categories import KEY, composed, parsed, values
from anomalib_rd.cli.common import Parser
from anomalib_rd.data.check import (
    ERROR,
    SEVERITIES,
    CategoryCheck,
    Counts,
    Finding,
    check_category,
    find_missing_categories,
)
from anomalib_rd.data.masks import check_mask_rule
from anomalib_rd.data.sources.source import Source, select_categories
from anomalib_rd.results.files import printable

LISTED = 20
"""Findings of one severity shown for a category; the others are counted."""


def check(overrides: list[str], as_json: bool) -> int:
    """Check the categories that the overrides name, or all; print what was found.

    Returns:
        The exit status: 2 if there are errors, else 0.

    Raises:
        UserError: no such data set or category.
    """
    data, wanted = settings(overrides)
    source = instantiate_source(data)
    available = source.categories()
    names = select_categories(source, wanted or "all")
    results = [*checked_all(source, names, data.mask_rule)]
    general = [] if wanted else find_missing_categories(source, available)
    findings = [*(finding for result in results for finding in result.findings), *general]
    if as_json:
        print(json.dumps(as_data(source.root, results, findings), indent=2))
    else:
        show(source.root, results, findings)
    return 2 if any(finding.severity == ERROR for finding in findings) else 0


def select_source(overrides: list[str]) -> tuple[Source, list[str]]:
    """The data set, and what ``data.category`` says; nothing if the words do not."""
    data, wanted = settings(overrides)
    return instantiate_source(data), wanted


def instantiate_source(data: DictConfig) -> Source:
    """The data set that the group ``data`` of the config names."""
    from hydra.utils import instantiate

    source: Source = instantiate(data.source)
    return source


def settings(overrides: list[str]) -> tuple[DictConfig, list[str]]:
    """The group ``data`` of the config, and what ``data.category`` says."""
    from anomalib_rd.cli.config import register_resolvers
    from anomalib_rd.cli.words import as_typed

    register_resolvers()
    overrides = as_typed(overrides, many=False)
    given = {index: o for index, o in parsed(overrides).items() if o.key_or_group == KEY}
    others = [word for index, word in enumerate(overrides) if index not in given]
    wanted = values(list(given.values())[-1]) if given else []
    data: DictConfig = composed(others, None).data
    check_mask_rule(data.mask_rule)
    return data, wanted


def checked_all(source: Source, names: list[str], mask_rule: str) -> Iterable[CategoryCheck]:
    """Each category in turn, with a bar on a terminal."""
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


def show(root: Path, results: list[CategoryCheck], findings: list[Finding]) -> None:
    """Print the tables, then a line for each finding."""
    console = Console()
    console.print(counts_table(root, results))
    console.print(formats_table(results))
    for result in results:
        if result.masks:
            print(f"{result.category}: {masks_read(result)}")
    shown: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        shown[finding.category, finding.severity] += 1
        if shown[finding.category, finding.severity] <= LISTED:
            # Not by rich: a path is to stay on its line.
            print(f"{finding.severity}: {printable(finding.text)}")
    for (category, severity), count in shown.items():
        if count > LISTED:
            print(f"{severity}: {category}: {count - LISTED} more; --json lists all")
    print(summary(findings) or "nothing found")


def counts_table(root: Path, results: list[CategoryCheck]) -> Table:
    """Images on disk beside those published."""
    table = Table(title=Text(str(root)), title_justify="left")
    table.add_column("category")
    for heading in ("train", "test good", "test defect", "masks", "published"):
        table.add_column(heading, justify="right")
    table.add_column("found")
    for result in results:
        counts = [str(count) for count in triple(result.counts)] or ["?", "?", "?"]
        masks = "?" if result.counts is None else str(result.masks)
        found = summary(result.findings) or "-"
        table.add_row(Text(result.category), *counts, masks, agreement(result), found)
    return table


def formats_table(results: list[CategoryCheck]) -> Table:
    """How many images are of which size and mode."""
    table = Table(title="sizes and modes as stored, upright", title_justify="left")
    for heading in ("category", "size", "mode", "images"):
        table.add_column(heading, justify="right" if heading == "images" else "left")
    for result in results:
        for (width, height, mode), count in result.formats.most_common():
            table.add_row(Text(result.category), f"{width} x {height}", mode, str(count))
    return table


def masks_read(result: CategoryCheck) -> str:
    """By which limit the masks are read."""
    kinds = {
        "by all but the background": result.masks - result.soft_masks,
        "with soft edges, above half of white": result.soft_masks,
    }
    parts = [f"{count} {how}" for how, count in kinds.items() if count]
    return f"masks: {', '.join(parts)} (data.mask_rule)"


def agreement(result: CategoryCheck) -> str:
    """Whether the counts are the published ones, or what those are."""
    if result.published is None:
        return "-"
    if result.counts == result.published:
        return "same"
    return " / ".join(str(count) for count in triple(result.published))


def triple(counts: Counts | None) -> tuple[int, ...]:
    """Training, normal test and defect images; nothing if they could not be counted."""
    return () if counts is None else (counts.train, counts.good, counts.defect)


def summary(findings: list[Finding]) -> str:
    """How many findings of which severity."""
    found = Counter(finding.severity for finding in findings)
    counts = [(found[severity], severity) for severity in SEVERITIES if found[severity]]
    return ", ".join(f"{n} {severity}{'' if n == 1 else 's'}" for n, severity in counts)


def as_data(root: Path, results: list[CategoryCheck], findings: list[Finding]) -> dict[str, Any]:
    """All of it, for scripts."""
    keys = ("train", "good", "defect")
    return {
        "root": str(root),
        "categories": [
            {
                "category": result.category,
                "counts": dict(zip(keys, triple(result.counts), strict=False)) or None,
                "published": dict(zip(keys, triple(result.published), strict=False)) or None,
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


def run(words: list[str]) -> int:
    """List categories, check them, download, or look after the cache folder."""
    parser = Parser(prog="anomalib-rd data")
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list", help="categories, image counts and defect types on disk")
    listing.add_argument(
        "overrides", nargs="*", help="as for train; all categories unless data.category says which"
    )
    checking = verbs.add_parser(
        "check", help="decode every image and mask; counts, leaks, duplicates; status 2 on errors"
    )
    checking.add_argument(
        "overrides", nargs="*", help="as for train; all categories unless data.category says which"
    )
    checking.add_argument("--json", action="store_true", help="print JSON")
    download = verbs.add_parser("download", help="MVTec AD, 5.3 GB, resumable")
    download.add_argument("--root", type=Path, default=Path("data/mvtec"), help="%(default)s")
    download.add_argument(
        "--accept-license",
        action="store_true",
        help="say that you accept CC BY-NC-SA 4.0 (it is shown without this flag)",
    )
    download.add_argument("--url", help="another link, where the one built in has moved")
    download.add_argument("--keep", action="store_true", help="keep the archive after unpacking")
    cache = verbs.add_parser("cache", help="where the cache folder is and what it holds")
    cache.add_argument("--clear", action="store_true", help="remove the decoded images")
    options = parser.parse_args(words)
    if options.verb == "list":
        return list_categories(options.overrides)
    if options.verb == "check":
        return check(options.overrides, options.json)
    if options.verb == "cache":
        return clear_cache() if options.clear else show_cache()
    from anomalib_rd.data.download import MVTEC_URL, download_mvtec

    download_mvtec(
        options.root,
        accept_license=options.accept_license,
        url=options.url or MVTEC_URL,
        keep=options.keep,
    )
    return 0


def list_categories(overrides: list[str]) -> int:
    """Print a table of the data set's categories, or of those that the overrides name."""
    from collections import Counter

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from anomalib_rd.data.sources.source import select_categories
    from anomalib_rd.data.sources.unused import find_unused

    source, wanted = select_source(overrides)
    notes: list[str] = []
    table = Table(title=Text(str(source.root)), title_justify="left")
    for heading in ("category", "group", "train", "test", "defect types (images)"):
        table.add_column(heading, justify="right" if heading in ("train", "test") else "left")
    for category in select_categories(source, wanted or "all"):
        split = source.split(category)
        counts = Counter(sample.defect for sample in split.test)
        notes += [f"{category}: {kind.text}" for kind in find_unused(source, category, split)]
        table.add_row(
            Text(category),
            "texture" if category in source.textures else "object",
            str(len(split.train)),
            str(len(split.test)),
            Text(", ".join(f"{defect} ({count})" for defect, count in counts.items())),
        )
    Console().print(table)
    for note in notes:
        print(note)
    return 0


def show_cache() -> int:
    """Print where the cache folder is and what its parts take."""
    from anomalib_rd.data.disk_cache import cache_folder, open_image_store
    from anomalib_rd.data.sources.demo import VERSION

    demo = [path.stat().st_size for path in (cache_folder() / VERSION).rglob("*") if path.is_file()]
    print(cache_folder())
    print(f"  decoded images  {in_words(*open_image_store().usage())}")
    print(f"  demo data set   {in_words(len(demo), sum(demo))}")
    return 0


def clear_cache() -> int:
    """Remove the decoded images, and nothing else, from the cache folder.

    Raises:
        UserError: no right to remove them.
    """
    from anomalib_rd.data.disk_cache import open_image_store
    from anomalib_rd.errors import UserError

    store = open_image_store()
    try:
        removed = store.clear()
    except OSError as error:
        raise UserError(
            f"cannot remove {error.filename or store.folder}: {error.strerror or error};"
            " clear the cache as the user who owns it"
        ) from error
    print(f"removed decoded images from {store.folder}: {in_words(*removed)}")
    return 0


def in_words(files: int, size: int) -> str:
    """A count of files and their bytes."""
    return f"{files} file{'' if files == 1 else 's'}, {size / 2**20:.1f} MiB"
