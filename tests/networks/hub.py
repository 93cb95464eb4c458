"""A local stand-in for the Hugging Face hub; run as a script it loads teachers from it.

``python hub.py FILE.safetensors`` prints the first weight of a teacher loaded from the hub, then
again from the hub's cache when the hub is gone, then the error for a teacher not in the cache.
"""

import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Hub(BaseHTTPRequestHandler):
    """The requests of a download of one file."""

    content = b""

    def do_HEAD(self):
        exists = self.path.endswith("/timm/resnet18.tv_in1k/resolve/main/model.safetensors")
        self.send_response(200 if exists or self.path == "/" else 404)
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.content) if exists else 0))
        self.end_headers()
        return exists

    def do_GET(self):
        if self.do_HEAD():
            self.wfile.write(self.content)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    Hub.content = Path(sys.argv[1]).read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"  # read on import
    from anomalib_rd.networks import Teacher

    print(next(Teacher("resnet18.tv_in1k").parameters()).flatten()[0].item())
    server.shutdown()
    server.server_close()
    print(next(Teacher("resnet18.tv_in1k").parameters()).flatten()[0].item())
    try:
        Teacher("resnet34.tv_in1k")
    except ValueError as error:
        print(error)
