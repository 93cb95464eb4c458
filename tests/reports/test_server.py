import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from fake_runs import fake_run

from anomalib_rd.cli.dashboard import is_loopback
from anomalib_rd.errors import UserError
from anomalib_rd.reports import server as server_module
from anomalib_rd.reports.server import DashboardServer
from anomalib_rd.results.files import write_atomically
from anomalib_rd.results.record import RESULT, write_failure
from anomalib_rd.results.sweeps import RUNNING, add_jobs, find_started_runs


def stand_in(folders, out):
    """A stand-in for the report page, which lists its runs."""
    runs = [run for folder in folders for run in find_started_runs(Path(folder))]
    if not runs:
        raise UserError(f"no complete run in {folders}")
    text = f"<title>report</title>{len(runs)} runs: {sorted(runs)}"
    return write_atomically(out, lambda file: file.write(text.encode()))


@contextmanager
def serving(folder, build=stand_in, **keywords):
    with DashboardServer(folder, build, port=0, **keywords) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def scan_for_each_request(monkeypatch):
    monkeypatch.setattr(server_module, "SHORTEST_INTERVAL", 0.0)
    monkeypatch.setattr(server_module, "LONGEST_SHARE", 0.0)


def ask(server, path="/", method="GET", headers=None):
    """Status, headers and body of an answer; the path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    try:
        connection.putrequest(method, path, skip_host="Host" in (headers or {}))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def page(server, path="/"):
    status, _, body = ask(server, path)
    assert status == 200, body
    return body


def sweeps(server):
    return {s["name"]: s for s in json.loads(page(server, "/progress.json"))["sweeps"]}


def write_running(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    process = psutil.Process()
    known = {"pid": process.pid, "created": process.create_time(), "host": socket.gethostname()}
    known |= {"started": time.time() - 60, "epoch": 3, "epochs": 10, "first_epoch": 0}
    (folder / RUNNING).write_text(json.dumps(known | changes))


def make_sweep(folder):
    """One run done, one at work, one failed, one not begun."""
    add_jobs(folder, "train -m", {job: [] for job in ("a/done", "a/live", "b/broken", "b/none")})
    fake_run(folder / "a/done")
    write_running(folder / "a/live")
    write_failure(folder / "b/broken", ValueError("no space"))
    return folder


def test_progress_of_sweeps_and_other_runs(tmp_path):
    make_sweep(tmp_path / "multirun/first")
    fake_run(tmp_path / "runs/one/2026")
    with serving(tmp_path) as server:
        all_of = sweeps(server)
        index = page(server)
    first = all_of["multirun/first"]
    assert first["counts"] == {"done": 1, "running": 1, "failed": 1, "missing": 1}
    assert first["total"] == 4 and first["url"] == "/multirun/first/report.html"
    (live,) = first["running"]
    assert (live["run"], live["epoch"], live["epochs"]) == ("a/live", 3, 10)
    assert first["failed"] == [{"run": "b/broken", "reason": "ValueError: no space"}]
    assert first["left"] == "less than a minute"
    (rest,) = (s for name, s in all_of.items() if name != "multirun/first")
    assert rest["counts"] == {"done": 1} and rest["url"] == "/report.html" and not rest["left"]
    assert next(iter(all_of)) == "multirun/first"  # what runs comes first
    assert 'href="/multirun/first/report.html"' in index and "epoch 3 of 10" in index
    assert '<noscript><meta http-equiv="refresh"' in index


def test_version_changes_with_the_progress_alone(tmp_path):
    make_sweep(tmp_path)
    with serving(tmp_path) as server:
        versions = [json.loads(page(server, "/progress.json"))["version"] for _ in range(2)]
        write_running(tmp_path / "a/live", epoch=4)
        after = json.loads(page(server, "/progress.json"))["version"]
        assert f'data-version="{after}"' in page(server)
    assert versions[0] == versions[1] != after


def test_an_empty_folder_and_a_damaged_sweep_are_shown_as_such(tmp_path):
    with serving(tmp_path) as server:
        assert "<section>" not in page(server)
        make_sweep(tmp_path / "good")
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad/sweep.json").write_text("{")
        all_of = sweeps(server)
        assert "sweep.json" in all_of["bad"]["error"] and all_of["bad"]["url"] is None
        assert all_of["good"]["error"] is None
        assert 'class="bad"' in page(server)


def test_report_is_built_once_and_anew_when_a_run_has_finished(tmp_path):
    calls = []

    def build(folders, out):
        calls.append(list(folders))
        return stand_in(folders, out)

    make_sweep(tmp_path / "s")
    with serving(tmp_path, build) as server:
        first = page(server, "/s/report.html")
        assert "3 runs" in first and page(server, "/s/report.html") == first
        assert calls == [[tmp_path / "s"]]
        fake_run(tmp_path / "s/b/none")
        assert "4 runs" in page(server, "/s/report.html") and len(calls) == 2
        for path in (tmp_path / "s/b/none").iterdir():
            path.unlink()
        assert "3 runs" in page(server, "/s/report.html") and len(calls) == 3
    with serving(tmp_path, build) as server:  # another server finds the page as it is
        page(server, "/s/report.html")
        assert len(calls) == 3
        later = time.time() + 100
        os.utime(tmp_path / "s/a/done" / RESULT, (later, later))
        page(server, "/s/report.html")
        assert len(calls) == 4


def test_report_of_runs_beside_sweeps_is_of_those_alone(tmp_path):
    make_sweep(tmp_path / "s")
    fake_run(tmp_path / "runs/one")
    write_failure(tmp_path / "runs/two", ValueError("x"))
    seen = []

    def build(folders, out):
        seen.extend(folders)
        return stand_in([tmp_path / "runs"], out)

    with serving(tmp_path, build) as server:
        page(server, "/report.html")
    assert seen == [tmp_path / "runs/one"]


def test_report_before_a_run_is_done_says_so(tmp_path):
    add_jobs(tmp_path / "s", "train -m", {"a": []})
    with serving(tmp_path) as server:
        assert sweeps(server)["s"]["url"] is None
        status, headers, body = ask(server, "/s/report.html")
        assert status == 404 and str(tmp_path / "s") in body and "Traceback" not in body
        assert "Content-Security-Policy" in headers


def test_a_builder_that_breaks_is_an_error_of_the_server(tmp_path, capsys):
    def build(folders, out):
        raise ZeroDivisionError("secret detail")

    make_sweep(tmp_path / "s")
    with serving(tmp_path, build) as server:
        status, _, body = ask(server, "/s/report.html")
        assert status == 500 and "secret" not in body
        assert page(server)
    assert "secret detail" in capsys.readouterr().err


def test_names_are_shown_as_text(tmp_path):
    name = "<script>alert(1)<∕script>\"'&ü Ω %2e"
    sweep = make_sweep(tmp_path / name)
    write_failure(sweep / "b/broken", ValueError("<img src=x onerror=alert(2)>"))
    with serving(tmp_path) as server:
        index = page(server)
        assert "<script>alert" not in index and "<img" not in index
        assert "&lt;script&gt;alert(1)" in index and "ü Ω" in index
        (link,) = re.findall(r'href="(/[^"]*report\.html)"', index)
        assert "3 runs" in page(server, link)


@pytest.mark.parametrize(
    "path",
    [
        *("/../secret", "/s/../../secret", "/%2e%2e/secret", "/s/%2e%2e/%2e%2e/secret"),
        *("/..%2fsecret", "//secret", "/\\..\\secret", "/s/..\\..\\secret", "/./secret"),
        *("/secret", "/s/a/done/result.json", "/s/sweep.json", "/s/", "/s", "/s/report.html/"),
        *("/s//report.html", "/s/./report.html", "/s/x/../report.html", "/other/report.html"),
        *("/s/report.html%00", "/templates/index.html.j2", "/page.js", "/style.css/../page.js"),
    ],
)
def test_nothing_else_is_served(tmp_path, path):
    top = tmp_path / "top"
    make_sweep(top / "s")
    (top / "other").mkdir()
    for place in (tmp_path / "secret", top / "secret", top / "other/report.html"):
        place.write_text("top secret")
    with serving(top) as server:
        status, _, body = ask(server, path)
    assert status == 404 and "top secret" not in body and "schema_version" not in body


def test_absolute_and_garbled_requests_are_refused(tmp_path):
    with serving(tmp_path) as server:
        assert ask(server, "http://127.0.0.1/")[0] == 404
        assert ask(server, "/" + "x" * 70000)[0] == 414
        with socket.create_connection(server.server_address, 10) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n" + b"no colon\r\n\r\n")
            assert b"403 Forbidden" in raw.makefile("rb").read()
        assert page(server)


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    outside = make_sweep(tmp_path / "outside")
    secret = tmp_path / "secret.html"
    secret.write_text("top secret")
    sweep = make_sweep(tmp_path / "top/s")
    (sweep / "report.html").symlink_to(secret)
    (tmp_path / "top/linked").symlink_to(outside)
    with serving(tmp_path / "top") as server:
        assert set(sweeps(server)) == {"s"}
        assert ask(server, "/linked/report.html")[0] == 404
        assert "3 runs" in page(server, "/s/report.html")


def test_a_page_that_is_a_link_is_not_read_even_if_it_cannot_be_replaced(tmp_path):
    secret = tmp_path / "secret.html"
    secret.write_text("top secret")
    sweep = make_sweep(tmp_path / "top/s")
    (sweep / "report.html").symlink_to(secret)
    with serving(tmp_path / "top", lambda folders, out: out) as server:
        status, _, body = ask(server, "/s/report.html")
    assert status == 404 and "top secret" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"])
def test_other_methods_are_refused(tmp_path, method):
    with serving(tmp_path) as server:
        status, headers, _ = ask(server, "/", method)
    assert status == 405 and headers["Allow"] == "GET, HEAD"


def test_head_is_get_without_the_body(tmp_path):
    make_sweep(tmp_path / "s")
    with serving(tmp_path) as server:
        for path in ("/", "/s/report.html", "/nothing"):
            status, headers, body = ask(server, path, "HEAD")
            expected, _, whole = ask(server, path)
            assert status == expected and body == ""
            assert int(headers["Content-Length"]) == len(whole.encode())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *[(name, 200) for name in ("127.0.0.1", "localhost:1234", "LOCALHOST", "[::1]:80")],
        *[(name, 403) for name in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example")],
        *[(name, 403) for name in ("", "localhost.evil.example:80", "x@127.0.0.1", ":8000")],
    ],
)
def test_other_names_for_this_machine_are_refused(tmp_path, host, status):
    with serving(tmp_path) as server:
        assert ask(server, "/progress.json", headers={"Host": host})[0] == status


def test_every_answer_is_locked_up(tmp_path):
    make_sweep(tmp_path / "s")
    with serving(tmp_path) as server:
        for path in ("/", "/index.js", "/style.css", "/progress.json", "/nothing"):
            headers = ask(server, path)[1]
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
            assert "Access-Control-Allow-Origin" not in headers
        policy = ask(server, "/s/report.html")[1]["Content-Security-Policy"]
    assert "script-src 'unsafe-inline'" in policy and "img-src data: blob:" in policy
    assert "http" not in policy and "*" not in policy and "connect-src" not in policy


def test_it_listens_on_this_machine_alone(tmp_path):
    with serving(tmp_path) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert server.url == f"http://127.0.0.1:{server.server_address[1]}/"
    assert is_loopback("127.0.0.1") and is_loopback("localhost") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("host.example")


@pytest.mark.parametrize("place", [{"port": 70000}, {"host": "no such host.invalid"}])
def test_an_address_that_cannot_be_taken_is_named(tmp_path, place):
    with pytest.raises(UserError, match=r"--port"):
        DashboardServer(tmp_path, stand_in, **({"port": 0} | place))


def test_a_taken_port_and_a_missing_folder_are_named(tmp_path):
    with serving(tmp_path) as server:
        port = server.server_address[1]
        with pytest.raises(UserError, match=f"port {port} .*in use"):
            DashboardServer(tmp_path, stand_in, port=port)
    with pytest.raises(UserError, match="none"):
        DashboardServer(tmp_path / "none", stand_in, port=0)


def test_requests_share_one_scan_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "SHORTEST_INTERVAL", 60.0)
    scans = []
    original = server_module.find_run_groups
    monkeypatch.setattr(
        server_module, "find_run_groups", lambda top: scans.append(top) or original(top)
    )
    with serving(tmp_path) as server:
        for _ in range(3):
            page(server, "/progress.json")
    assert len(scans) == 1


COMMAND = "import sys; from anomalib_rd.cli import main; sys.exit(main(sys.argv[1:]))"


def test_the_command_serves_until_it_is_interrupted(tmp_path):
    make_sweep(tmp_path / "s")
    words = [sys.executable, "-c", COMMAND, "dashboard", str(tmp_path), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", line)[1])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/s/report.html")
            answer = connection.getresponse()
            assert answer.status == 200 and b"rd4ad" in answer.read()
            connection.close()
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0 and rest == "stopped\n"


def test_the_index_updates_itself_in_a_browser(tmp_path, open_tab):
    sweep = make_sweep(tmp_path / "<b>s")
    with serving(tmp_path) as server:
        tab = open_tab(server.url, viewport={"width": 360, "height": 640})
        assert tab.locator("h2").inner_text() == "<b>s"
        assert tab.locator("progress").get_attribute("value") == "1"
        tab.locator("summary").click()
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        fake_run(sweep / "a/live")
        (sweep / "a/live" / RUNNING).unlink()
        tab.wait_for_selector('progress[value="2"]', timeout=15000)
        assert tab.locator("details").get_attribute("open") is not None
        tab.locator("h2 a").click()
        assert "3 runs" in tab.inner_text("body")
        tab.go_back()
