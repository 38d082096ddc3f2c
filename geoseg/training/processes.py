"""The processes of one training: which of them leads."""

from __future__ import annotations

import os


def is_first_process(devices: int) -> bool:
    """Tell whether this process leads; others of the same run write and say nothing.

    A training on one device is alone, whatever rank srun or torchrun have given to its
    process: a batch job may start several trainings at a time.

    Args:
        devices: `train.devices` of the run.
    """
    return devices == 1 or int(os.environ.get("LOCAL_RANK", "0")) == 0
