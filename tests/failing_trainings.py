"""`geoseg train` as a program, in which one of two processes fails on its own.

    python tests/failing_trainings.py HOW [argument...]

Its other process is started as it is, with HOW, and does the same.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, NoReturn
from unittest.mock import patch

import torch

from geoseg.cli.main import main
from geoseg.training import module, processes

FIRST = os.environ.get("LOCAL_RANK", "0") == "0"


def full_gpu(*_: object) -> NoReturn:
    raise torch.OutOfMemoryError("CUDA out of memory")


def killed(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def terminated(*_: object) -> None:
    # In the middle of a step: the others wait for this process then.
    os.kill(os.getpid(), signal.SIGTERM)


def full_disk(_: object, stream: Any) -> NoReturn:  # noqa: ANN401
    stream.write(b"half")
    raise OSError(28, "No space left on device")


def stuck(*_: object) -> None:
    time.sleep(300)


def fail(how: str) -> None:
    """Have this process fail, if it is the one that shall."""
    step = module.SegmentationModule
    if how == "disk" and FIRST:
        patch.object(torch, "save", full_disk).start()
    if how == "killed" and not FIRST:
        patch.object(step, "_forward", killed).start()
    if how == "terminated" and not FIRST:
        patch.object(step, "_forward", terminated).start()
    if how in ("gpu", "stuck") and not FIRST:
        patch.object(step, "_forward", full_gpu).start()
    if how == "stuck" and FIRST:  # as with NCCL, where a lost one is waited for
        patch.object(step, "_forward", stuck).start()
        patch.object(processes, "_PATIENCE", 2.0).start()


if __name__ == "__main__":
    fail(sys.argv[1])
    main(sys.argv[2:], prog_name="geoseg")
