"""The download, from a local server that can misbehave."""

import hashlib
import io
import random
import re
import subprocess
import sys
import tarfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from anomalib_rd.data import download
from anomalib_rd.data.download import MVTEC_ARCHIVE, download_mvtec
from anomalib_rd.data.sources.layouts import MVTEC_OBJECTS, MVTEC_TEXTURES, MVTecAD
from anomalib_rd.errors import UserError

CATEGORIES = sorted(MVTEC_OBJECTS | MVTEC_TEXTURES)


def make_archive(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = 0o444  # as in MVTec's own
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def archive():
    noise = random.Random(0)
    members = {f"{name}/train/good/000.png": noise.randbytes(20_000) for name in CATEGORIES}
    return make_archive(members | {"license.txt": b"CC BY-NC-SA 4.0", "readme.txt": b"hello"})


@dataclass
class Behaviour:
    """What the server does; ``requested`` ranges and ``sent`` bytes of each request."""

    body: bytes
    ranges: bool = True
    cut_after: int | None = None
    wrong_range: bool = False
    status: int | None = None
    kind: str = "application/x-xz"
    requested: list = field(default_factory=list)
    sent: list = field(default_factory=list)


@pytest.fixture
def server(archive):
    behaviour = Behaviour(archive)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requested = self.headers.get("Range")
            behaviour.requested.append(requested)
            total = len(behaviour.body)
            start = int(re.fullmatch(r"bytes=(\d+)-", requested)[1]) if requested else 0
            if behaviour.status:
                self.send_error(behaviour.status)
                return
            if not (requested and behaviour.ranges):
                start = 0
                self.send_response(200)
            elif start >= total:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{total}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            else:
                first = 0 if behaviour.wrong_range else start
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
            rest = behaviour.body[start:]
            self.send_header("Content-Type", behaviour.kind)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            rest = rest[: behaviour.cut_after]
            behaviour.sent.append(len(rest))
            self.wfile.write(rest)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{http.server_port}/share/mvtec.tar.xz"
        yield SimpleNamespace(behaviour=behaviour, url=url)
        http.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "sets" / "mvtec"


@pytest.fixture
def get(server, archive, root):
    def call(accept_license=True, body=None, **options):
        if body is not None:
            server.behaviour.body = body
        digest = hashlib.sha256(body or archive).hexdigest()
        return download_mvtec(root, accept_license, server.url, digest, **options)

    return call


def part_size(root):
    return (root.parent / f"{MVTEC_ARCHIVE}.part").stat().st_size


def neighbours(root):
    return sorted(path.name for path in root.parent.iterdir()) if root.parent.exists() else []


def test_download(get, root, archive, capsys):
    assert get() == CATEGORIES
    assert MVTecAD(root).categories() == CATEGORIES
    size = sum(len(p.read_bytes()) for p in root.rglob("*.png"))
    assert size == 20_000 * 15
    assert neighbours(root) == ["mvtec"]
    printed = capsys.readouterr().err
    assert "CC BY-NC-SA 4.0" in printed and "CVPR 2019" in printed


def test_complete_already(get, root, server, capsys):
    get()
    requests = len(server.behaviour.requested)
    assert get() == []
    assert len(server.behaviour.requested) == requests
    assert str(root) in capsys.readouterr().err


def test_only_missing_categories_are_placed(get, root):
    own = root / "bottle" / "train" / "good" / "own.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    assert get() == [name for name in CATEGORIES if name != "bottle"]
    assert [p.name for p in own.parent.iterdir()] == ["own.png"]


def test_a_kept_archive_is_used_again(get, root, server):
    get(keep=True)
    assert neighbours(root) == ["mvtec", MVTEC_ARCHIVE]
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert get() == CATEGORIES
    assert len(server.behaviour.requested) == 1


def test_a_wrong_archive_of_the_user_is_not_deleted(get, root, server):
    root.parent.mkdir()
    (root.parent / MVTEC_ARCHIVE).write_bytes(b"by hand")
    with pytest.raises(UserError, match="sha256"):
        get()
    assert (root.parent / MVTEC_ARCHIVE).read_bytes() == b"by hand"
    assert server.behaviour.requested == []


def test_the_licence_must_be_accepted(get, root, server, one_line, capsys):
    with pytest.raises(UserError) as info:
        get(accept_license=False)
    assert "--accept-license" in one_line(info)
    assert "not for commercial use" in capsys.readouterr().err
    assert server.behaviour.requested == []
    assert neighbours(root) == []


def test_resumes_after_a_lost_connection(get, root, server, archive, one_line):
    server.behaviour.cut_after = 100_000
    with pytest.raises(UserError) as info:
        get()
    message = one_line(info)
    assert "0.1 of 0.3 MB" in message
    assert neighbours(root) == [f"{MVTEC_ARCHIVE}.part"]
    size = part_size(root)
    assert 100_000 - size < 2**15
    server.behaviour.cut_after = None
    assert get() == CATEGORIES
    assert server.behaviour.requested == [None, f"bytes={size}-"]
    assert server.behaviour.sent == [100_000, len(archive) - size]
    assert neighbours(root) == ["mvtec"]


def test_restarts_if_the_server_supports_no_ranges(get, root, server, archive):
    server.behaviour.cut_after = 100_000
    with pytest.raises(UserError):
        get()
    server.behaviour.cut_after, server.behaviour.ranges = None, False
    assert get() == CATEGORIES
    assert server.behaviour.sent == [100_000, len(archive)]


def test_restarts_on_a_wrong_range(get, root, server, archive):
    server.behaviour.cut_after = 100_000
    with pytest.raises(UserError):
        get()
    size = part_size(root)
    server.behaviour.cut_after, server.behaviour.wrong_range = None, True
    assert get() == CATEGORIES
    assert server.behaviour.requested == [None, f"bytes={size}-", None]


@pytest.mark.parametrize("extra", [b"", b"excess"])
def test_a_part_that_is_complete_or_too_long(get, root, server, archive, extra):
    root.parent.mkdir()
    (root.parent / f"{MVTEC_ARCHIVE}.part").write_bytes(archive + extra)
    assert get() == CATEGORIES
    assert server.behaviour.sent == ([len(archive)] if extra else [])


def test_wrong_hash(root, server, archive, one_line):
    with pytest.raises(UserError) as info:
        download_mvtec(root, True, server.url, "0" * 64)
    message = one_line(info)
    assert hashlib.sha256(archive).hexdigest() in message
    assert "0" * 64 in message
    assert neighbours(root) == []


@pytest.mark.parametrize("name", ["../evil", "bottle/../../evil"])
def test_malicious_member(get, root, tmp_path, one_line, name):
    evil = make_archive({"bottle/train/good/000.png": b"x", name: b"evil"})
    with pytest.raises(UserError) as info:
        get(body=evil)
    assert "evil" in one_line(info)
    assert neighbours(root) == [MVTEC_ARCHIVE]
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"no archive at all"])
def test_broken_archive(get, root, archive, one_line, damage):
    with pytest.raises(UserError) as info:
        get(body=damage(archive))
    assert str(root.parent / MVTEC_ARCHIVE) in one_line(info)
    assert neighbours(root) == [MVTEC_ARCHIVE]


def test_another_archive(get, root, one_line):
    with pytest.raises(UserError) as info:
        get(body=make_archive({"other/a.txt": b"x"}))
    assert "bottle" in one_line(info)
    assert not (root / "other").exists()


def test_interrupted_unpacking_leaves_no_partial_category(get, root, monkeypatch):
    extract = tarfile.TarFile.extractall

    def interrupted(self, path, **options):
        extract(self, path, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extractall", interrupted)
        with pytest.raises(KeyboardInterrupt):
            get()
    assert neighbours(root) == [MVTEC_ARCHIVE]
    (root.parent / ".mvtec.unpacking" / "left by a kill").mkdir(parents=True)
    assert get() == CATEGORIES
    assert neighbours(root) == ["mvtec"]


@pytest.mark.parametrize("status", [403, 404, 500])
def test_link_moved(get, root, server, one_line, status):
    server.behaviour.status = status
    with pytest.raises(UserError) as info:
        get()
    assert f"status {status}" in one_line(info)
    assert "--url" in one_line(info)


def test_a_web_page_does_not_overwrite_the_part(get, root, server, one_line):
    server.behaviour.cut_after = 100_000
    with pytest.raises(UserError):
        get()
    size = part_size(root)
    server.behaviour.cut_after, server.behaviour.ranges = None, False
    server.behaviour.kind = "text/html; charset=utf-8"
    with pytest.raises(UserError) as info:
        get()
    assert "--url" in one_line(info)
    assert part_size(root) == size > 0


def test_unreachable(root, one_line):
    with pytest.raises(UserError) as info:
        download_mvtec(root, True, "http://127.0.0.1:9/mvtec.tar.xz")
    message = one_line(info)
    assert "127.0.0.1:9" in message
    assert "https://www.mvtec.com" in message


def test_no_space(get, root, monkeypatch, one_line):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**5))
    with pytest.raises(UserError) as info:
        get()
    assert str(root.parent) in one_line(info)
    assert neighbours(root) == []


def test_root_below_a_file(get, root, one_line):
    root.parent.write_text("a file, not a folder")
    with pytest.raises(UserError) as info:
        get()
    assert str(root.parent) in one_line(info)


TWO = """
import sys, time
from anomalib_rd.data import download
root, url, digest, keep = sys.argv[1:]
unpack = download.tarfile.TarFile.extractall
def slowly(self, path, **options):
    time.sleep(0.5)  # the other process would begin to unpack now
    unpack(self, path, **options)
    time.sleep(0.5)
download.tarfile.TarFile.extractall = slowly
print(len(download.download_mvtec(root, True, url, digest, keep=keep == "keep")))
"""


@pytest.mark.parametrize("kept", ["keep", "drop"])
def test_two_processes_place_everything_once(root, server, archive, kept):
    digest = hashlib.sha256(archive).hexdigest()
    command = [sys.executable, "-c", TWO, str(root), server.url, digest, kept]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    outputs = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(int(out) for out, _ in outputs) == [0, 15]
    assert MVTecAD(root).categories() == CATEGORIES
    assert sum(len(p.read_bytes()) for p in root.rglob("*.png")) == 20_000 * 15
    assert len(server.behaviour.requested) == 1
    assert neighbours(root) == ["mvtec", *([MVTEC_ARCHIVE] if kept == "keep" else [])]


def test_two_roots_in_one_folder_share_the_archive(root, server, archive):
    digest = hashlib.sha256(archive).hexdigest()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    roots = [root, root.with_name("other")]
    processes = [
        subprocess.Popen([sys.executable, "-c", TWO, str(one), server.url, digest, "keep"], **pipes)
        for one in roots
    ]
    outputs = [process.communicate(timeout=100) for process in processes]
    assert [int(out) for out, _ in outputs] == [15, 15], outputs
    assert len(server.behaviour.requested) == 1
    assert all(MVTecAD(one).categories() == CATEGORIES for one in roots)
