"""Two processes learn what one does, and a killed run what one that was not does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_runs import make_module

from geoseg.training.batches import StepBatches
from geoseg.training.module import SegmentationModule

TESTS = Path(__file__).parents[1]


def program(folder: Path, *arguments: str) -> int:
    """Run a training as a program; return its exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    roots = [str(TESTS.parent), str(TESTS)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    script = str(TESTS / "training_runs.py")
    done = subprocess.run(
        [sys.executable, script, str(folder), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    shared = ["--gradients", "steps=2", "batch_size=4", "final_share=0", "scenes=3"]
    assert masks_by_rank(make_module(batch_size=4, scenes=3)) == [(6, 4), (4, 6)]
    program(tmp_path / "one", *shared)
    program(tmp_path / "two", *shared, "devices=2", "final_batch_size=2")
    for step in range(2):
        one, two = (
            torch.load(tmp_path / name / f"gradients-{step}.pt", weights_only=True)
            for name in ("one", "two")
        )
        assert one.keys() == two.keys()
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-5)


def masks_by_rank(module: SegmentationModule) -> list[tuple[int, ...]]:
    """Masks of the chips of the first two steps, by rank of two."""
    batches = [
        StepBatches(module.source, module.config, 48, rank, 2) for rank in range(2)
    ]
    return [
        tuple(int(module.loss.count(one[step].labels)[0]) for one in batches)
        for step in range(2)
    ]


@pytest.mark.slow
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    shared = ["steps=12", "checkpoint_seconds=0.001", "validate_every=3"]
    assert program(tmp_path / "straight", *shared) == 0
    for step in (4, 8):
        killed = program(tmp_path / "killed", *shared, "--kill-at", str(step))
        assert killed == -signal.SIGKILL
        last = torch.load(tmp_path / "killed" / "out" / "last.ckpt", weights_only=True)
        assert last["global_step"] == step  # a checkpoint a step: no more is redone
    assert program(tmp_path / "killed", *shared) == 0
    for name in ("last.ckpt", "best.ckpt"):
        wanted, found = (
            torch.load(tmp_path / run / "out" / name, weights_only=True)
            for run in ("straight", "killed")
        )
        assert found["global_step"] == wanted["global_step"]
        assert_same(found["state_dict"], wanted["state_dict"])
    for name in ("log.csv", "validation.csv"):
        straight, resumed = (
            (tmp_path / run / "out" / name).read_text().splitlines()
            for run in ("straight", "killed")
        )
        assert [untimed(line) for line in resumed] == [
            untimed(line) for line in straight
        ]


def untimed(line: str) -> list[str]:
    """A line of a log without its time, which is the second column."""
    step, _, *rest = line.split(",")
    return [step, *rest]


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Weights are equal bit by bit."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name
