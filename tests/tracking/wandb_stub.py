"""A local server with the part of W&B's API that starts a run and saves a view."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "0123456789abcdef0123456789abcdef01234567"


class Stub(ThreadingHTTPServer):
    """With `hangs` set it does not answer, with `refuses` it answers with that status.

    Requests are in `operations` (names), `bodies` (name, request) and `paths`.
    """

    daemon_threads = True

    def __init__(self):
        self.hangs, self.closing = threading.Event(), threading.Event()
        self.bodies, self.paths, self.refuses = [], [], None
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def operations(self):
        return [name for name, _ in self.bodies]


class Answer(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.hangs.is_set():
            self.server.closing.wait()
            return
        self.server.paths.append(self.path)
        if self.server.refuses is not None:
            self.send_error(self.server.refuses)
            return
        try:
            body = json.loads(text)
        except ValueError:
            body = {}
        named = re.search(r"(?:query|mutation)\s+(\w+)", body.get("query", ""))
        operation = body.get("operationName") or (named[1] if named else "")
        self.server.bodies.append((operation, body))
        bucket = {"id": "1", "name": "r", "displayName": "r", "config": "{}", "sweepName": None}
        project = {"id": "1", "name": "p", "entity": {"id": "1", "name": "e"}}
        data = {}
        if operation == "UpsertBucket":
            data = {"upsertBucket": {"bucket": bucket | {"project": project}, "inserted": True}}
        if operation == "CreateRunFiles":
            data = {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": []}}
        if operation in ("Viewer", "GetDefaultEntity"):
            data = {"viewer": {"id": "1", "entity": "me", "username": "me", "teams": {"edges": []}}}
        if operation == "UpsertView2":
            data = {"upsertView": {"view": {"id": "v1", "name": "nw-abc-v"}, "inserted": True}}
        reply = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    do_GET = do_PUT = do_POST  # noqa: N815

    def log_message(self, *_):
        pass
