"""Peak memory of a process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path


def high_water_mib(pid: int) -> float:
    """VmHWM: the largest resident size since the last reset; 0 once it has ended."""
    return _field(pid, "VmHWM")


def resident_mib(pid: int) -> float:
    """VmRSS: what is resident now; 0 once the process has ended."""
    return _field(pid, "VmRSS")


def _field(pid: int, name: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    for line in lines:
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def reset_high_water(pid: int) -> None:
    """Let VmHWM begin again at what is resident now."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5)
    except OSError:
        return  # Ended meanwhile, or not ours: then peaks only include earlier ones.
