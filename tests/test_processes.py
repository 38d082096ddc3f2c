"""What tests start ends with them, whatever it does."""

from __future__ import annotations

from pathlib import Path

import psutil
from processes import running


def test_what_does_not_heed_the_signal_is_killed_with_all_that_it_started(
    tmp_path: Path,
) -> None:
    script = "trap '' TERM; sleep 600 & echo started; wait"
    log = tmp_path / "log"
    with (
        log.open("wb") as stream,
        running(["sh", "-c", script], log=stream, patience=0.1) as process,
    ):
        while not log.read_text():
            assert process.poll() is None
        family = psutil.Process(process.pid).children()
    assert process.returncode == -9
    assert len(family) == 1
    assert not family[0].is_running()
