"""A folder on the web and a server that never answers, for tests of remote scenes."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVER = Path(__file__).with_name("range_server.py")


@dataclass(frozen=True)
class Web:
    """A folder on the web."""

    url: str
    """Its address."""
    log: Path
    """Bytes of each answer, a line each."""

    def sent(self) -> int:
        """Return the bytes that were sent."""
        return sum(map(int, self.log.read_text().split()))


@contextmanager
def serve(folder: Path, log: Path) -> Iterator[Web]:
    """Serve a folder on loopback."""
    command = [sys.executable, str(SERVER), str(folder), str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None, "it was opened"
            port = int(process.stdout.readline())
            yield Web(f"http://127.0.0.1:{port}", log)
        finally:
            process.terminate()


@contextmanager
def stall() -> Iterator[str]:
    """Give the address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def gather(count: int) -> Iterator[str]:
    """Serve nothing, and say so only once so many have asked and wait."""

    def answer() -> None:
        waiting = [server.accept()[0] for _ in range(count)]
        for connection in waiting:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
