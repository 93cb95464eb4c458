"""``anomalib-rd data``: what is in a data set, is it sound, MVTec AD's download, the cache."""

from pathlib import Path

from anomalib_rd.cli.arguments import Parser


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
        from anomalib_rd.cli.data_check import check

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

    from anomalib_rd.cli.data_check import chosen
    from anomalib_rd.data.sources.source import select_categories
    from anomalib_rd.data.sources.unused import find_unused

    source, wanted = chosen(overrides)
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
