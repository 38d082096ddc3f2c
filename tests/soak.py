"""Kill worker, scheduler and client again and again; what is left must be right.

    python tests/soak.py [--kills 20] [--json FILE]

Kills come by trigger, not by sleep: when the n-th part of a scene is on disk, or when a
file of the finishing step is. Then the same call goes on. Every output must equal that
of an undisturbed run byte by byte, and with k of all parts on disk at most
`all - k + 1` bands may reach the model again.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import psutil
from distributed import Client
from rasters import write_raster
from running import (
    STRIDE,
    TILE,
    configuration,
    fingerprint,
    plan_job,
    segment_plainly,
    smooth_image,
)
from stubs import clear_log, logged_tiles, save_stub

from geoseg._processes import local_cluster
from geoseg.errors import ClusterError
from geoseg.pipelines import segment

TESTS = Path(__file__).parent

Victim = Literal["worker", "scheduler", "client"]

BANDS, TILES = 24, 24
"""Bands of the scene, and tiles in each."""

SIGNS = (".classes*", "classes.tif", ".confidence*", "confidence.tif", ".segments*")
"""Files in the order in which the finishing step makes them."""

ATTEMPTS = 6
"""Runs until a file that is there for milliseconds is seen, on a busy machine."""

TIMEOUT = 120.0
"""Seconds for anything to happen on a busy machine."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One kill, and what became of the run."""

    trigger: str
    """What was waited for."""
    done: int
    """Parts on disk when all was still again."""
    all: int
    """Parts of the scene."""
    finishing: bool
    """Whether the kill came between the last part and the scene's end."""
    bands_after: float
    """Bands that reached the model after the kill."""
    equal: bool
    """Whether the outputs are those of an undisturbed run, and nothing else is left."""

    @property
    def midway(self) -> bool:
        """Whether some parts were done, and some were not."""
        return 0 < self.done < self.all

    @property
    def right(self) -> bool:
        """Whether the outputs are right and no more was computed than needed."""
        return self.equal and self.bands_after <= self.all - self.done + 1


class Soak:
    """Runs of one scene on a stub model, each in a run directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self._ending = ExitStack()
        image = smooth_image(*(TILE + STRIDE * (n - 1) for n in (BANDS, TILES)))
        self.scene = write_raster(folder / "scene.tif", image)
        self.model = save_stub(
            folder / "model", kind="levels", log_folder=self.log, seconds=0.001
        )
        [whole] = segment_plainly(self.scene, folder / "whole", self.model)
        self.expected = fingerprint(Path(whole.folder))
        assert len(plan_job(self.scene, folder / "plan", self.model).parts) == BANDS

    def __enter__(self) -> Soak:
        """Start a cluster, which ends with the block."""
        self._cluster = self._ending.enter_context(started())
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._ending.close()

    def trials(self, victim: Victim, kills: int) -> Iterator[Trial]:
        """Kill as often as asked, each fourth time while the scene is finished."""
        for number in range(kills):
            trigger, out, killed = self._killed(victim, number, kills)
            if victim == "scheduler":
                self._ending.close()
                self._cluster = self._ending.enter_context(started())
            done, logged = killed.done, killed.logged
            if victim != "worker":  # whose run went on by itself
                done, logged = parts_on_disk(out), self.tiles()
                self.run(out)
            yield Trial(
                trigger=trigger,
                done=done,
                all=BANDS,
                finishing=killed.finishing,
                bands_after=(self.tiles() - logged) / TILES,
                equal=self._is_right(out),
            )

    def _killed(
        self, victim: Victim, number: int, kills: int
    ) -> tuple[str, Path, Killed]:
        """Run until the trigger of a trial is seen, and the victim killed."""
        for attempt in range(ATTEMPTS):
            out = self.folder / f"{victim}-{number}-{attempt}"
            clear_log(self.log)
            trigger, ready = _trigger(number, kills, out)
            if victim == "client":
                killed = self._kill_client(out, ready)
                wait_until_idle(self._cluster)
            else:
                killed = self._kill_server(out, ready, victim)
            if killed is not None:
                return trigger, out, killed
        raise AssertionError(f"{trigger}: not seen in {ATTEMPTS} runs")

    def tiles(self) -> int:
        """Tiles that reached the model."""
        return sum(logged_tiles(self.log).values())

    def run(self, out: Path) -> None:
        """Segment the scene from this process."""
        given = {"scheduler": self._cluster, "timeout": TIMEOUT}
        report = segment.run(
            configuration(self.scene, out, self.model, {"cluster": given})
        )
        assert report.ok, report.failures

    def _kill_server(
        self, out: Path, ready: Callable[[], bool], victim: Victim
    ) -> Killed | None:
        found: list[Killed] = []
        over = threading.Event()

        def kill() -> None:
            wait_for(lambda: ready() or over.is_set())
            if over.is_set():
                return
            pid = self._worker() if victim == "worker" else _scheduler()
            found.append(self._kill(pid, out))

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        with suppress(ClusterError) if victim == "scheduler" else ExitStack():
            self.run(out)
        over.set()
        killer.join(TIMEOUT)
        return found[0] if found else None

    def _kill_client(self, out: Path, ready: Callable[[], bool]) -> Killed | None:
        command = [sys.executable, "-m", "geoseg", "segment", self.scene, "-o", out]
        command += ["--model", self.model, "--set", "model.imports=[stubs]"]
        command += ["--stride", STRIDE, "--device", "cpu", "-q"]
        command += ["--scheduler", self._cluster]
        with subprocess.Popen([*map(str, command)], env=_environment()) as client:
            try:
                wait_for(lambda: ready() or client.poll() is not None)
                if client.poll() is not None:
                    return None
                return self._kill(client.pid, out)
            finally:
                client.kill()

    def _kill(self, pid: int, out: Path) -> Killed:
        process = psutil.Process(pid)
        os.kill(pid, signal.SIGKILL)
        finishing = (out / "scene").is_dir()
        finishing &= not (out / "scene" / "item.json").exists()
        with suppress(psutil.TimeoutExpired, ChildProcessError):
            process.wait(timeout=0.5)
        return Killed(finishing, parts_on_disk(out), self.tiles())

    def _worker(self) -> int:
        """The process that runs the model; those of earlier trials are dead."""
        return next(pid for pid in logged_tiles(self.log) if psutil.pid_exists(pid))

    def _is_right(self, out: Path) -> bool:
        left = [*(out / ".geoseg" / "parts").iterdir(), *(out / "scene").glob(".*")]
        return not left and fingerprint(out / "scene") == self.expected


@dataclass(frozen=True, slots=True)
class Killed:
    """What was there when a process had died."""

    finishing: bool
    """Whether the scene was being finished."""
    done: int
    """Parts on disk."""
    logged: int
    """Tiles that had reached the model."""


def _trigger(number: int, kills: int, out: Path) -> tuple[str, Callable[[], bool]]:
    """What the n-th trial waits for: each fourth is in the finishing step."""
    if number % 4 == 3:
        sign = SIGNS[number // 4 % len(SIGNS)]
        return f"file {sign}", lambda: any((out / "scene").glob(sign))
    part = 1 + number * (BANDS - 5) // kills
    return f"part {part}", lambda: parts_on_disk(out) >= part


def parts_on_disk(out: Path) -> int:
    """Parts whose last file is there."""
    return len(list(out.glob(".geoseg/parts/*/part-*.json")))


def wait_for(ready: Callable[[], bool]) -> None:
    """Look a thousand times a second."""
    deadline = time.monotonic() + TIMEOUT
    while not ready():
        assert time.monotonic() < deadline, "the trigger did not come"
        time.sleep(0.001)


@contextmanager
def started() -> Iterator[str]:
    """Scheduler and one worker as `geoseg segment` starts them."""
    before = dict(os.environ)
    os.environ.update(_environment())
    try:
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
            local_cluster(1, 2, TIMEOUT, Path(scratch)) as address,
        ):
            yield address
    finally:
        os.environ.clear()
        os.environ.update(before)


def _environment() -> dict[str, str]:
    paths = os.pathsep.join(map(str, (TESTS, TESTS.parent)))
    # Of deaths that are wanted nobody needs to read.
    return {**os.environ, "PYTHONPATH": paths, "DASK_LOGGING__DISTRIBUTED": "critical"}


def _scheduler() -> int:
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "distributed.Scheduler" in " ".join(child.cmdline()):
                return child.pid
    raise AssertionError("there is no scheduler")


def wait_until_idle(cluster: str) -> None:
    """Wait until a scheduler has forgotten the tasks of a client that was killed."""
    with Client(cluster, set_as_default=False) as client:

        def idle() -> bool:
            running = client.call_stack()
            known = client.run_on_scheduler(
                lambda dask_scheduler: len(dask_scheduler.tasks)
            )
            return not known and not any(running.values())

        wait_for(idle)


def main() -> None:
    """Print a line for each kill; fail if one left anything wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"bands": BANDS}
    right = True
    with tempfile.TemporaryDirectory() as folder, Soak(Path(folder)) as soak:
        for victim in get_args(Victim):
            trials = []
            for trial in soak.trials(victim, arguments.kills):
                trials.append(trial)
                print(f"{victim}: {trial} {'right' if trial.right else 'WRONG'}")
            figures[victim] = summary(trials)
            right &= passed(trials)
    if arguments.json is not None:
        sys.path.insert(0, str(TESTS.parent / "benchmarks"))
        from record import write_results  # type: ignore[import-not-found]

        write_results(arguments.json, figures)
    for victim in get_args(Victim):
        counts = figures[victim].items()
        print(victim, {name: count for name, count in counts if name != "trials"})
    if not right:
        raise SystemExit("a kill left something wrong, or too few came midway")


def summary(trials: list[Trial]) -> dict[str, Any]:
    """Counts, and each trial."""
    return {
        "kills": len(trials),
        "midway": sum(trial.midway for trial in trials),
        "finishing": sum(trial.finishing for trial in trials),
        "right": sum(trial.right for trial in trials),
        "trials": [asdict(trial) for trial in trials],
    }


def passed(trials: list[Trial]) -> bool:
    """Whether all is right; three of four kills came midway, one while finishing."""
    counts = summary(trials)
    quarter = len(trials) // 4
    return bool(
        counts["right"] == len(trials)
        and counts["midway"] >= 3 * quarter
        and counts["finishing"] >= quarter
    )


if __name__ == "__main__":
    main()
