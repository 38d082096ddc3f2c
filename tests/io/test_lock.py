"""Work that only one may do at a time, whoever dies over it."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from geoseg.errors import OutputError
from geoseg.io.lock import exclusive, in_turn, is_held, remove_unless_held

HOLD = """\
import sys
from pathlib import Path
from geoseg.io.lock import in_turn

with in_turn(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_threads_take_turns_and_leave_no_lock(tmp_path: Path) -> None:
    lock, inside, most = tmp_path / "lock", [0], [0]

    def work(_: int) -> None:
        with in_turn(lock):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            (tmp_path / "written").write_text("by one")
            inside[0] -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(400)))
    assert most == [1]
    assert not lock.exists()


def test_a_lock_goes_with_the_process_that_holds_it(tmp_path: Path) -> None:
    lock, got = tmp_path / "lock", threading.Event()

    def wait() -> None:
        with in_turn(lock):
            got.set()

    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_held(lock)
        remove_unless_held(lock)
        assert lock.exists()
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not got.wait(0.1)
        holder.kill()
        waiting.join(30)
    assert got.is_set()
    assert not lock.exists()


def test_a_lock_that_was_left_is_removed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    remove_unless_held(lock)
    assert not lock.exists()
    remove_unless_held(lock)


def test_on_a_disk_without_locks_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with in_turn(tmp_path / "no" / "folder"):
        pass
    monkeypatch.setattr(fcntl, "flock", refuse)
    with in_turn(tmp_path / "lock"), in_turn(tmp_path / "lock"):
        pass


def test_a_folder_that_takes_no_lock_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(OutputError, match=r"cannot be written to .* choose another -o"),
        exclusive(tmp_path / ".lock", tmp_path),
    ):
        pass
