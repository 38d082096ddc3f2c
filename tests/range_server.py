"""A web server of files that answers requests for ranges and writes down their sizes.

    python range_server.py FOLDER LOG

As many times as FOLDER/stumbles says, it fails where a range is asked for.

It writes its port to standard output. GDAL opens files while it holds Python's lock, so
that a server in a thread of the same process would never answer.
"""

from __future__ import annotations

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    """Answers from a folder."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send the bytes that are asked for."""
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content, asked = path.read_bytes(), self.headers.get("Range")
        if asked is not None and self._stumbles():
            self.send_error(500)
            return
        first, last = 0, len(content) - 1
        if asked is not None:
            low, high = asked.removeprefix("bytes=").split("-")
            first, last = int(low), min(int(high or last), last)
        self.send_response(200 if asked is None else 206)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        # Before the bytes: who has them may look at once.
        with Path(sys.argv[2]).open("a") as log:
            log.write(f"{last + 1 - first}\n")
        self.wfile.write(content[first : last + 1])

    def _stumbles(self) -> bool:
        left = Path(self.translate_path("/stumbles"))
        count = int(left.read_text()) if left.is_file() else 0
        if count:
            left.write_text(str(count - 1))
        return count > 0

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    handler = partial(Handler, directory=sys.argv[1])
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()
