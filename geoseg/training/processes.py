"""The processes of one training: which of them leads, and how all end when one does."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from subprocess import Popen
from time import monotonic, sleep
from typing import Any, NoReturn

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from geoseg.errors import AgreedError, GeosegError, TrainingError
from geoseg.stopping import SIGNALLED

_LOOK, _PATIENCE = 1.0, 10.0
"""Seconds between two looks at the others, and until one that ended must be missed."""

_ASKED = [
    code
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for code in (-number, SIGNALLED + number)
]
"""Codes of processes that were asked to end."""

_REASON = "geoseg/ended"
"""Key of the processes' store: why one ended that the others did not agree with."""

_GONE = re.compile(
    "closed by peer|reset by peer|broken pipe|pair closure|remote process exited", re.I
)
"""What gloo and NCCL say where another process is not there any more."""


def is_first_process(devices: int) -> bool:
    """Tell whether this process leads; others of the same run write and say nothing.

    A training on one device is alone, whatever rank srun or torchrun have given to its
    process: a batch job may start several trainings at a time.

    Args:
        devices: `train.devices` of the run.
    """
    return devices == 1 or os.environ.get("LOCAL_RANK", "0") == "0"


def check_rank(devices: int) -> None:
    """Refuse a rank of other processes, as `srun` jobs and shells may have left one.

    Lightning would take this process for one of several that others have started, and
    wait for the rest of them in vain.

    Args:
        devices: `train.devices` of the run.

    Raises:
        TrainingError: There is a rank, and it is not one of this run's.
    """
    rank, size = (os.environ.get(name) for name in ("LOCAL_RANK", "WORLD_SIZE"))
    if devices > 1 and rank is not None and size != str(devices):
        told = "is not set" if size is None else f"is {size}"
        raise TrainingError(
            f"LOCAL_RANK is set to {rank!r} in the environment, but WORLD_SIZE {told} "
            f"and train.devices is {devices}; unset LOCAL_RANK and start the training "
            "once, by itself: it starts its other processes"
        )


@contextmanager
def ending_together(trainer: Trainer) -> Iterator[None]:
    """End the others with the first process, and have it know why another one ended.

    No process can ask the others here: they may be in the middle of a step.

    Raises:
        TrainingError: In the first process: another one has ended.
        AgreedError: In another one: it is not the one that failed.
    """
    try:
        yield
    except BaseException as error:
        gone = isinstance(error, RuntimeError) and bool(_GONE.search(str(error)))
        if trainer.world_size == 1:
            raise
        if trainer.is_global_zero:
            _end_with_first(trainer, error if gone else None)
        elif gone:
            raise AgreedError("another process has ended") from error
        elif isinstance(error, Exception) and not isinstance(error, AgreedError):
            _leave_reason(error)
        raise


def _end_with_first(trainer: Trainer, gone: BaseException | None) -> None:
    reason = "" if gone is None else _left_reason()
    launcher = trainer.strategy.launcher
    others = launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []
    # It lets go of the others before it is gone: its code tells of a kill.
    until = monotonic() + (0 if gone is None else _PATIENCE)
    while others and monotonic() < until and not any(one.poll() for one in others):
        sleep(0.05)
    code = _kill(others)
    if gone is not None:
        raise TrainingError(_sentence(code, reason)) from gone


class TogetherStrategy(DDPStrategy):
    """DDP whose first process tells why it has to end when another one did.

    Lightning's own kills it by then, without a word.
    """

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = _Launcher(
            self.cluster_environment, self.num_processes, self.num_nodes
        )


class _Launcher(_SubprocessScriptLauncher):
    """Starts the other processes, and watches them while the function runs."""

    def launch(
        self,
        function: Callable[..., Any],
        *args: Any,  # noqa: ANN401 (Lightning's own signature)
        trainer: Trainer | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if self.cluster_environment.creates_processes_externally:
            return function(*args, **kwargs)
        self._call_children_scripts()
        watch = _Watch(self.procs)
        watch.start()
        try:
            return function(*args, **kwargs)
        finally:
            watch.over.set()


class _Watch(threading.Thread):
    """Ends this process when it waits for one that has ended: with NCCL, for ever."""

    def __init__(self, others: Sequence[Popen[bytes]]) -> None:
        super().__init__(daemon=True, name="watch-of-processes")
        self.others = others
        self.over = threading.Event()
        """Set when nothing is waited for any more."""

    def run(self) -> None:
        while not any(one.poll() for one in self.others):
            if self.over.wait(_LOOK):
                return
        # gloo tells it at once, and then the main thread ends as it should.
        if not self.over.wait(_PATIENCE):
            self._end()

    def _end(self) -> NoReturn:
        # Not by an exception: the main thread is in the middle of C++.
        sys.stderr.write(f"Error: {_sentence(_kill(self.others), '')}\n")
        sys.stderr.flush()
        os._exit(1)


def _kill(others: Sequence[Popen[bytes]]) -> int:
    """End processes, which hold nothing; return the code of one that had failed, or 0.

    Outright: those that wait for another one do not hear of a signal.
    """
    code = next((code for one in others if (code := one.poll())), 0)
    for one in others:
        one.kill()
    for one in others:
        one.wait()
    return code


def _sentence(code: int, reason: str) -> str:
    if code == -signal.SIGKILL:
        return (
            "another process of this training was killed, as the system does when "
            "memory is short; free some, and run the same command again"
        )
    if code in _ASKED:
        return (
            "another process of this training was asked to end, as guards of memory "
            "and batch systems do; run the same command again to go on"
        )
    what = f": {reason}" if reason else ", which is told above"
    return f"another process of this training ended with an error{what}"


def _leave_reason(error: Exception) -> None:
    text = str(error)
    if not isinstance(error, GeosegError):
        text = f"unexpected {type(error).__name__}: {text}"
    with suppress(RuntimeError, ValueError):  # The first one is gone, or never came.
        _store().set(_REASON, text)


def _left_reason() -> str:
    with suppress(RuntimeError, ValueError):
        store = _store()
        if store.check([_REASON]):
            text: str = store.get(_REASON).decode()
            return text
    return ""


def _store() -> Any:  # noqa: ANN401 (torch has the type of its stores in C++)
    """What processes know each other by: it answers also when one has failed."""
    return torch.distributed.distributed_c10d._get_default_store()
