"""What every benchmark writes: its figures, the commit, and the machine they are of."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def write_results(path: Path, figures: dict[str, Any]) -> None:
    """Write figures as JSON, with what they depend on."""
    record = {
        "commit": commit(),
        # Of what is not committed nobody can say later what was measured.
        "modified": _git("status", "--porcelain", "--", "geoseg", "configs").split(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {_processor()}",
        "python": platform.python_version(),
        **figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")


def known_results(path: Path | None, setup: dict[str, Any]) -> dict[str, Any]:
    """Figures that a file has of the same setup; none where it has others, or is none.

    Args:
        path: What `write_results` wrote.
        setup: Figures that must all be as they are there.
    """
    if path is None or not path.exists():
        return {}
    record: dict[str, Any] = json.loads(path.read_text())
    # As they are when they come back: tuples are lists.
    wanted: dict[str, Any] = json.loads(json.dumps(setup))
    return record if wanted.items() <= record.items() else {}


def commit() -> str:
    """Name the commit that is checked out."""
    return _git("rev-parse", "HEAD")


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _processor() -> str:
    """Name of the processor; `platform.processor()` is empty on Debian."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()
