"""How a real run ends when it is interrupted, ended, killed, or loses its scheduler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from rasters import write_raster
from running import smooth_image
from stubs import save_stub

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]


def parts(folder: Path) -> int:
    return len(list((folder / "out").glob(".geoseg/parts/*/part-*.json")))


def start(folder: Path) -> subprocess.Popen[str]:
    """Start a run of minutes in a process group of its own, as a terminal does."""
    scene = write_raster(folder / "scene.tif", smooth_image(64 + 48 * 60, 130))
    model = save_stub(folder / "model", seconds=0.1)
    command = [sys.executable, "-m", "geoseg", "segment", scene, "-o", folder / "out"]
    command += ["--model", model, "--set", "model.imports=[stubs]", "--stride", "48"]
    process = subprocess.Popen(
        [*map(str, command), "--workers", "1"],
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Processes started in the background of a shell ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while not parts(folder):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def interrupt_all(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)


def interrupt_twice(process: subprocess.Popen[str]) -> None:
    interrupt_all(process)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Stopping: finishing"):
            break
    interrupt_all(process)


def terminate(process: subprocess.Popen[str]) -> None:
    process.terminate()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()


def kill_scheduler(process: subprocess.Popen[str]) -> None:
    for child in family(process):
        if "distributed.Scheduler" in " ".join(child.cmdline()):
            child.kill()


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        (interrupt_twice, 130, "Error: interrupted; what is finished in"),
        (kill_scheduler, 1, "Error: the connection to the scheduler was lost; start"),
        (kill, -signal.SIGKILL, ""),
    ],
)
def test_a_run_ends_at_once_with_one_line_and_leaves_no_process(
    tmp_path: Path,
    end: Callable[[subprocess.Popen[str]], None],
    code: int,
    said: str,
) -> None:
    process = start(tmp_path)
    children = family(process)
    assert len(children) >= 3  # scheduler, nanny, worker
    end(process)
    started = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert time.monotonic() - started < 20
    assert parts(tmp_path) <= 2
    assert "Traceback" not in errors
    if said:
        [line] = [line for line in errors.splitlines() if line.startswith("Error")]
        assert line.startswith(said), errors
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not (tmp_path / "out" / "scene").exists()


@pytest.mark.parametrize(("end", "code"), [(interrupt_all, 130), (terminate, 143)])
def test_parts_in_hand_are_finished_and_the_same_call_goes_on(
    tmp_path: Path, end: Callable[[subprocess.Popen[str]], None], code: int
) -> None:
    process = start(tmp_path)
    children, begun = family(process), parts(tmp_path)
    end(process)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    told = [line.split(",")[0] for line in errors.splitlines()[-2:]]
    assert told[0] in ("Stopping: finishing 1 part", "Stopping: finishing 2 parts")
    assert told[1].startswith("Error: interrupted; what is finished in")
    assert "run the same command again to go on" in errors
    assert parts(tmp_path) - begun >= 1
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
