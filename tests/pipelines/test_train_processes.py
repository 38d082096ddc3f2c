"""`geoseg train` in two processes: said once, and by one of them."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from trainings import configuration, write_pairs

from geoseg.config import dump

STEPS = {
    "steps": 2,
    "batch_size": 2,
    "final_chip_size": 48,
    "final_batch_size": 2,
    "validate_every": 2,
    "devices": 2,
    "accelerator": "cpu",
}


FAILING = str(Path(__file__).parents[1] / "failing_trainings.py")
"""A program whose first argument says which of two processes fails, and how."""


def trained(
    root: Path,
    broken: str = "",
    program: Sequence[str] = ("-m", "geoseg"),
    **changes: Any,  # noqa: ANN401
) -> subprocess.CompletedProcess[str]:
    """Train by the command line, on pairs of which some images are cut short."""
    split = {"train": ["a", "b"], "validation": ["c", "d"]}
    config = configuration(root, split=split, layout="pairs", train=STEPS)
    patterns = write_pairs(root, ["a", "b", "c", "d"])
    for name in broken:
        image = root / f"scenes/images/{name}.png"
        image.write_bytes(image.read_bytes()[:-200])
    data = dataclasses.replace(config.data, **patterns, **changes)
    recipe = root / "mine.yaml"
    recipe.write_text(dump(dataclasses.replace(config, data=data)))
    return subprocess.run(
        [sys.executable, *program, "train", "-c", str(recipe)],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What a training called an error, a line each."""
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


@pytest.mark.slow
def test_scenes_left_out_are_told_of_once(tmp_path: Path) -> None:
    done = trained(tmp_path, "c", on_bad="skip")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Note: c is left out: ") == 1
    assert done.stderr.count("Step 2: mIoU") == 1
    assert "| validated on | d |" in (tmp_path / "out/model/README.md").read_text()


@pytest.mark.slow
def test_an_image_that_each_process_meets_is_named_once(tmp_path: Path) -> None:
    done = trained(tmp_path, "ab")
    assert done.returncode == 1
    (error,) = errors(done)
    assert "cannot be read" in error


FULL = "the GPU's memory is full with 1 chips in a forward pass"
OTHER = "another process of this training"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("gpu", [FULL, f"{OTHER} ended with an error: {FULL}"]),
        ("stuck", [FULL, f"{OTHER} ended with an error, which is told above"]),
        ("killed", [f"{OTHER} was killed"]),
        ("terminated", [f"{OTHER} was asked to end"]),
        ("disk", [r".*/out/best\.ckpt cannot be written \(No space left on device\)"]),
    ],
)
def test_a_process_that_fails_alone_ends_the_other_one_and_is_told(
    tmp_path: Path, how: str, told: list[str]
) -> None:
    done = trained(tmp_path, program=(FAILING, how))
    assert done.returncode == 1, done.stderr
    found = errors(done)
    assert len(found) == len(told), done.stderr
    for line, text in zip(found, told, strict=True):
        assert re.match(f"Error: {text}", line), line
