"""Download of MVTec AD: licence, resumable download, checksum, unpacking."""

import hashlib
import lzma
import shutil
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import requests
from filelock import AcquireReturnProxy, FileLock, Timeout
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

# MVTec sometimes changes the link (one expired in November 2025), but not the archive and its
# hash. The current link is on MVTEC_PAGE.
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
_CHUNK = 1 << 15  # bytes; a lost connection loses at most one


def download_mvtec(
    root: str | Path,
    accept_license: bool,
    url: str = MVTEC_URL,
    sha256: str = MVTEC_SHA256,
    keep: bool = False,
) -> list[str]:
    """Download the categories of MVTec AD that are missing in ``root``; return their names.

    The archive (5.3 GB) is stored next to ``root`` as ``mvtec_anomaly_detection.tar.xz``. An
    existing archive is used, and an interrupted download resumes.

    Args:
        root: folder for the categories.
        accept_license: whether the user accepts the licence, which is printed.
        url: URL of the archive.
        sha256: hash of the archive.
        keep: whether to keep the archive afterwards.

    Raises:
        UserError: licence not accepted, server unreachable or connection lost, no space left,
            wrong or malicious archive.
    """
    root = expand_home(root).absolute()
    console = Console(stderr=True)
    console.print(MVTEC_LICENSE, highlight=False, soft_wrap=True)
    if not accept_license:
        command = DOWNLOAD_COMMAND.format(root=root)
        raise UserError(f"the licence of MVTec AD is not accepted; to accept it: {command}")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise UserError(f"--url {url}: give an address that begins with https:// or http://")
    placed: list[str] = []
    try:
        if _missing(root):
            root.parent.mkdir(parents=True, exist_ok=True)
            archive = root.with_name(MVTEC_ARCHIVE)
            with _lock(archive, console):
                # Another process may have unpacked them in the meantime.
                if missing := _missing(root):
                    _provide(archive, url, sha256, console)
                    placed = _unpack(archive, root, missing, console)
                    if not keep:
                        archive.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename2 or error.filename or root.parent}:"
            f" {error.strerror or error}; choose another root or free some space"
        ) from error
    names = f"MVTec AD is in {root}: {', '.join(placed)}"
    message = names if placed else f"all of MVTec AD is already in {root}: nothing to do"
    console.print(message, soft_wrap=True, markup=False)
    return placed


def _missing(root: Path) -> set[str]:
    wanted = MVTEC_TEXTURES | MVTEC_OBJECTS
    return {name for name in wanted if not (root / name / "train" / "good").is_dir()}


def _lock(archive: Path, console: Console) -> AcquireReturnProxy:
    """Wait until no other process of this user downloads or unpacks the archive."""
    # In the cache folder: a lock file next to the archive would remain there.
    path = archive.parent.resolve() / archive.name
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.lock")
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        message = f"another process downloads {path}: waiting for it"
        console.print(message, soft_wrap=True, markup=False)
        return lock.acquire()


def _provide(archive: Path, url: str, sha256: str, console: Console) -> None:
    if archive.exists():
        _verify(archive, sha256, remove=False)
    else:
        part = archive.with_name(f"{archive.name}.part")
        _fetch(url, part, archive, console)
        _verify(part, sha256, remove=True)
        part.rename(archive)
    _require_space(archive.parent, _unpacked_size(archive.stat().st_size))


def _fetch(url: str, part: Path, archive: Path, console: Console) -> None:
    """Download ``url`` to ``part``, and resume a partial file if the server supports that."""
    size = part.stat().st_size if part.exists() else 0
    with _request(url, size, archive) as response:
        content_range = response.headers.get("Content-Range", "")
        complete = response.status_code == 416 and content_range.endswith(f"/{size}")
        wrong_range = response.status_code == 206 and not content_range.startswith(f"bytes {size}-")
        restart = wrong_range or (response.status_code == 416 and not complete)
        if not (complete or restart):
            _receive(response, part, size, console)
    if restart:  # the part is from another file
        part.unlink()
        _fetch(url, part, archive, console)


def _request(url: str, start: int, archive: Path) -> requests.Response:
    """The response: the archive from byte ``start`` on, the full archive, or status 416."""
    by_hand = f"download it from {MVTEC_PAGE} to {archive} and run the same command again"
    # identity: hash and ranges refer to the file, not to a compressed transfer.
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
            f"{url} returns {what}: MVTec may have moved it; give the new link with --url, or"
            f" {by_hand}"
        )
    return response


def _receive(response: requests.Response, part: Path, size: int, console: Console) -> None:
    """Append the body of a 206 to the ``size`` bytes of ``part``; a 200 overwrites them."""
    resumed = response.status_code == 206
    start = size if resumed else 0
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    if total is not None:
        _require_space(part.parent, total - size + _unpacked_size(total))
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    lost = None
    try:
        with (
            part.open("ab" if resumed else "wb") as file,
            Progress(
                *columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console
            ) as progress,
        ):
            task = progress.add_task("Downloading", total=total, completed=start)
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
    except requests.RequestException as error:
        lost = error
    received = part.stat().st_size
    if lost or (total is not None and received < total):
        of_total = f" of {total / 1e6:.1f}" if total else ""
        raise UserError(
            f"connection lost after {received / 1e6:.1f}{of_total} MB; run the same command again"
            f" to resume from {part}"
        ) from lost


def _unpacked_size(size: int) -> int:
    return int(1.1 * size)  # images hardly compress


def _require_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"not enough space in {folder}: {size / 1e9:.1f} GB needed to download and unpack,"
            f" {free / 1e9:.1f} GB free; free some space or choose another root"
        )


def _verify(archive: Path, sha256: str, remove: bool) -> None:
    with archive.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != sha256:
        if remove:
            archive.unlink()
        raise UserError(
            f"{archive} is not MVTec AD's archive: sha256 is {actual}, expected {sha256};"
            f" {'it was removed' if remove else 'delete it'}, run the same command again"
        )


def _unpack(archive: Path, root: Path, wanted: set[str], console: Console) -> list[str]:
    """Unpack next to ``root``, then rename each wanted category into it."""
    # A fixed name, so that the next run removes the files of a killed one.
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
        raise UserError(f"{archive} contains none of: {', '.join(sorted(wanted))}")
    return [path.name for path in placed]
