"""What a batch system says of jobs in which workers run (dask-jobqueue)."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import Any

_PATIENCE = 10.0
"""Seconds that a batch system has to answer."""


@dataclass(frozen=True, slots=True)
class JobState:
    """What became of the jobs of a cluster."""

    alive: bool
    """Whether a worker may still come of them."""
    said: str
    """The end of a message, "" when nothing is known."""


def state(cluster: Any) -> JobState:  # noqa: ANN401 (distributed is untyped)
    """Ask SLURM about the jobs of a cluster; of others nothing is known."""
    ids = [getattr(job, "job_id", None) for job in cluster.workers.values()]
    known = [job_id for job_id in ids if job_id is not None]
    if getattr(getattr(cluster, "job_cls", None), "submit_command", None) != "sbatch":
        return JobState(True, "")
    if not known:
        return JobState(
            True, ": no job was asked for; set cluster.workers with --workers"
        )
    return _ask_slurm(known)


def _ask_slurm(ids: list[str]) -> JobState:
    queue = ["squeue", "--noheader", "--format=%i %T %r", "--jobs", ",".join(ids)]
    try:
        asked = subprocess.run(
            queue, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return JobState(True, f"; squeue does not answer ({error})")
    # It knows ended jobs for some minutes, then says that an id is invalid.
    lines = [line.split(maxsplit=2) for line in asked.stdout.splitlines()]
    if asked.returncode == 0 and lines:
        jobs = ", ".join(f"job {line[0]} is {' '.join(line[1:])}" for line in lines)
        return JobState(True, f": squeue says {jobs}")
    if asked.returncode == 0 or "Invalid job id" in asked.stderr:
        return JobState(
            False,
            f": job {', '.join(ids)} has ended, see its log (slurm-JOB.out here, or in "
            "cluster.spec.options.log_directory)",
        )
    return JobState(True, f"; squeue says {' '.join(asked.stderr.split())}")


def refusal(error: BaseException) -> str | None:
    """Say on one line why a batch system took no job; None: it is not to blame."""
    if isinstance(error, FileNotFoundError) and error.filename:
        return (
            f"{error.filename} is not here; run geoseg where jobs are submitted, or "
            "choose another of configs/clusters with --cluster"
        )
    # dask-jobqueue gives what the command printed, in a text of many lines.
    match = re.search(
        r"Command:\n(?P<command>\S+).*stderr:\n(?P<said>.*)", str(error), re.DOTALL
    )
    if match is None:
        return None
    said = re.sub(r"(?m)^\w+: error: ", "", match["said"].strip())
    return f"{match['command']} refused the job: {'; '.join(said.splitlines())}"
