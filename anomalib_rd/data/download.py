"""MVTec AD from its makers: licence, resumable download, check, unpacking."""

import hashlib
import lzma
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
    wrap_file,
)

from anomalib_rd.data.disk_cache import cache_folder
from anomalib_rd.data.sources.layouts import DOWNLOAD_COMMAND, MVTEC_OBJECTS, MVTEC_TEXTURES
from anomalib_rd.errors import UserError
from anomalib_rd.results.files import expand_home

# MVTec's share links change from time to time (one expired in November 2025); the archive, and so
# its hash, stays. The current link is on MVTEC_PAGE.
MVTEC_URL = (
    "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/"
    "download/420938113-1629960298/mvtec_anomaly_detection.tar.xz"
)
MVTEC_SHA256 = "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d"
MVTEC_PAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad/downloads"
MVTEC_ARCHIVE = "mvtec_anomaly_detection.tar.xz"
MVTEC_LICENSE = """\
MVTec AD, (c) MVTec Software GmbH, is licensed under CC BY-NC-SA 4.0
(https://creativecommons.org/licenses/by-nc-sa/4.0/): not for commercial use; give credit;
share alike. Cite: P. Bergmann, M. Fauser, D. Sattlegger, C. Steger: MVTec AD - A Comprehensive
Real-World Dataset for Unsupervised Anomaly Detection, CVPR 2019, 9584-9592."""
_CHUNK = 1 << 15  # bytes; a cut connection loses at most one


def download_mvtec(
    root: str | Path,
    accept_license: bool,
    url: str = MVTEC_URL,
    sha256: str = MVTEC_SHA256,
    keep: bool = False,
) -> list[str]:
    """Put those of MVTec AD's 15 categories that are missing into ``root``; return their names.

    The archive (5.3 GB) is downloaded beside ``root``; one already there under the name
    ``mvtec_anomaly_detection.tar.xz`` is used instead, and a download that was cut off resumes.

    Args:
        root: the folder that is to hold the categories.
        accept_license: whether the user accepts the licence, which is shown.
        url: where to load the archive from.
        sha256: what the archive must hash to.
        keep: leave the archive there afterwards.

    Raises:
        UserError: licence not accepted, server not reached or connection lost, no space left,
            wrong or malicious archive.
    """
    root = expand_home(root).absolute()
    console = Console(stderr=True)
    console.print(MVTEC_LICENSE, highlight=False, soft_wrap=True)
    if not accept_license:
        raise UserError(
            f"the licence of MVTec AD is not accepted; to accept it: {DOWNLOAD_COMMAND.format(root=root)}"
        )
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise UserError(f"--url {url}: give an address that begins with https:// or http://")
    try:
        if _missing(root):
            root.parent.mkdir(parents=True, exist_ok=True)
            archive = root.with_name(MVTEC_ARCHIVE)
            with _alone(archive, console):
                placed = _place(archive, root, url, sha256, keep, console)
        else:
            placed = []
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename2 or error.filename or root.parent}:"
            f" {error.strerror or error};"
            " choose another root or make room"
        ) from error
    said = f"MVTec AD is in {root}: {', '.join(placed)}"
    nothing = f"all of MVTec AD is already in {root}: nothing done"
    console.print(said if placed else nothing, soft_wrap=True, markup=False)
    return placed


def _missing(root: Path) -> set[str]:
    """The categories that are not in ``root``."""
    wanted = MVTEC_TEXTURES | MVTEC_OBJECTS
    return {name for name in wanted if not (root / name / "train" / "good").is_dir()}


@contextmanager
def _alone(archive: Path, console: Console) -> Iterator[None]:
    """Wait until no other process of this user works on the archive or on what is unpacked of it.

    The lock is not beside the archive: there it would be left behind for good.
    """
    place = archive.parent.resolve() / archive.name
    name = hashlib.sha256(str(place).encode()).hexdigest()[:16]
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        console.print(
            f"another process downloads {place}: waiting for it", soft_wrap=True, markup=False
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _place(
    archive: Path, root: Path, url: str, sha256: str, keep: bool, console: Console
) -> list[str]:
    """Put what is missing into ``root``; nothing where another process has done so meanwhile."""
    missing = _missing(root)
    if not missing:
        return []
    if not archive.exists():
        part = archive.with_name(f"{archive.name}.part")
        _fetch(url, part, archive, console)
        _verify(part, sha256, remove=True)
        part.rename(archive)
    else:
        _verify(archive, sha256, remove=False)
    _check_space(archive.parent, _unpacked(archive.stat().st_size))
    placed = _unpack(archive, root, missing, console)
    if not keep:
        archive.unlink()
    return placed


def _fetch(url: str, part: Path, archive: Path, console: Console) -> None:
    """Load ``url`` into ``part``, from where ``part`` ends if the server can."""
    have = part.stat().st_size if part.exists() else 0
    with _request(url, have, archive) as response:
        content_range = response.headers.get("Content-Range", "")
        whole = response.status_code == 416 and content_range.endswith(f"/{have}")
        foreign = response.status_code == 416 or (
            response.status_code == 206 and not content_range.startswith(f"bytes {have}-")
        )
        if not foreign:
            _receive(response, part, have, console)
    if foreign and not whole:  # what is there is no part of this file: start anew
        part.unlink()
        _fetch(url, part, archive, console)


def _request(url: str, start: int, archive: Path) -> requests.Response:
    """The server's answer, which is the archive from byte ``start``, the whole, or a 416."""
    by_hand = f"load it by hand from {MVTEC_PAGE} to {archive} and run the same command again"
    # identity: the hash and the ranges are of the file as it is, not as compressed on the way.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=(15, 60))
    except requests.RequestException as error:
        raise UserError(
            f"cannot reach {urlsplit(url).netloc or url} ({type(error).__name__});"
            f" check network and proxy, or {by_hand}"
        ) from error
    is_page = response.headers.get("Content-Type", "").startswith("text/html")
    refused = not response.ok and not (start and response.status_code == 416)
    if refused or (is_page and response.ok):
        response.close()
        what = f"status {response.status_code}" if refused else "a web page, not the archive"
        raise UserError(
            f"{url} answers with {what}: MVTec may have moved it;"
            f" give the new link with --url, or {by_hand}"
        )
    return response


def _receive(response: requests.Response, part: Path, have: int, console: Console) -> None:
    """Write the body of a 206 behind the ``have`` bytes of ``part``, that of a 200 anew."""
    resumed = response.status_code == 206
    start = have if resumed else 0
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    if total is not None:
        _check_space(part.parent, total - have + _unpacked(total))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    lost = None
    try:
        with (
            part.open("ab" if resumed else "wb") as file,
            Progress(*columns, console=console) as progress,
        ):
            task = progress.add_task("Downloading", total=total, completed=start)
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
    except requests.RequestException as error:
        lost = error
    size = part.stat().st_size
    if lost or (total is not None and size < total):
        raise UserError(
            f"connection lost after {size / 1e6:.1f}{f' of {total / 1e6:.1f}' if total else ''} MB;"
            f" run the same command again to resume ({part} holds what has come)"
        ) from lost


def _unpacked(size: int) -> int:
    """Bytes that an archive of ``size`` takes unpacked: images hardly compress."""
    return int(1.1 * size)


def _check_space(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < need:
        raise UserError(
            f"not enough space in {folder}: {need / 1e9:.1f} GB needed to download and unpack,"
            f" {free / 1e9:.1f} GB free; make room or choose another root"
        )


def _verify(archive: Path, sha256: str, remove: bool) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        if remove:
            archive.unlink()
        raise UserError(
            f"{archive} is not MVTec AD's archive: sha256 is {found}, expected {sha256};"
            f" {'it is removed' if remove else 'delete it'}, run the same command again"
        )


def _unpack(archive: Path, root: Path, wanted: set[str], console: Console) -> list[str]:
    """Unpack beside ``root``, then rename the wanted categories into it, each in one step."""
    # A fixed name: what a killed run left is cleared away by the next. No other works there now.
    temporary = root.with_name(f".{root.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with (
            archive.open("rb") as raw,
            wrap_file(
                raw, archive.stat().st_size, description="Unpacking", console=console
            ) as file,
            tarfile.open(fileobj=file, mode="r|*") as tar,
        ):
            tar.extractall(temporary, filter="data")
        root.mkdir(exist_ok=True)
        placed = [path for path in sorted(temporary.iterdir()) if path.name in wanted]
        for path in placed:
            path.rename(root / path.name)
    except tarfile.FilterError as error:
        raise UserError(f"{archive} is refused: {error}; nothing was unpacked") from error
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise UserError(f"{archive} cannot be unpacked: {error}; delete it, run again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if not placed:
        raise UserError(f"{archive} holds none of: {', '.join(sorted(wanted))}")
    return [path.name for path in placed]
