"""Two processes end together, and what either has to tell is told once."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, distributed

from geoseg.errors import GeosegError, GeosegWarning, SceneError, TrainingError
from geoseg.reporting.notes import heard
from geoseg.training.agreement import agree, gathered

Told = tuple[str, list[str]]
"""What a process ended with, and what it warned of."""


def trainer_of(rank: int, world: int) -> Trainer:
    """As much of a trainer as is asked."""

    def reduce(value: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "sum"
        distributed.all_reduce(value)
        return value

    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=reduce)
    fields = {"world_size": world, "is_global_zero": rank == 0, "strategy": strategy}
    return cast(Trainer, SimpleNamespace(**fields))


def told_by(trainer: Trainer, error: GeosegError | None, notes: Sequence[str]) -> Told:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            agree(trainer, error, notes)
            end = ""
        except GeosegError as raised:
            end = f"{type(raised).__name__}: {raised}"
    return end, [str(one.message) for one in caught]


CASES: list[list[tuple[GeosegError | None, list[str]]]] = [
    [(None, []), (None, [])],
    [(None, ["b is bad"]), (None, ["b is bad", "c is bad"])],
    [(None, ["b is bad"]), (SceneError("c cannot be read"), [])],
    [(SceneError("b cannot be read"), []), (SceneError("c cannot be read"), [])],
]


def process(rank: int, meeting: Path, results: Any) -> None:  # noqa: ANN401 (a queue)
    distributed.init_process_group(
        "gloo", init_method=meeting.as_uri(), rank=rank, world_size=2
    )
    trainer = trainer_of(rank, 2)
    told = [told_by(trainer, *case[rank]) for case in CASES]
    every = gathered(trainer, f"process {rank}")
    distributed.destroy_process_group()
    results.put((rank, told, every))


def test_two_processes_end_together_and_the_first_one_tells(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    both = [
        context.Process(target=process, args=(rank, tmp_path / "meeting", results))
        for rank in range(2)
    ]
    for one in both:
        one.start()
    found = sorted(results.get(timeout=120) for _ in both)
    for one in both:
        one.join(60)
    assert [every for *_, every in found] == [["process 0", "process 1"]] * 2
    first, other = (told for _, told, _ in found)
    assert first == [
        ("", []),
        ("", ["b is bad", "c is bad"]),
        ("TrainingError: c cannot be read", ["b is bad"]),
        ("SceneError: b cannot be read", []),
    ]
    # `geoseg train` says nothing of an AgreedError.
    assert other == [
        ("", []),
        ("", []),
        ("AgreedError: c cannot be read", []),
        ("AgreedError: b cannot be read", []),
    ]


def test_a_process_alone_asks_nobody() -> None:
    trainer = trainer_of(0, 1)
    assert told_by(trainer, None, ["b is bad"]) == ("", ["b is bad"])
    with pytest.raises(TrainingError, match=r"^nothing left$"):
        agree(trainer, TrainingError("nothing left"), [])


def test_geosegs_warnings_are_heard_and_others_warned_of() -> None:
    notes: list[str] = []

    def warn() -> None:
        with heard(notes.append):
            for text, kind in (("a", GeosegWarning), ("b", UserWarning)) * 2:
                warnings.warn(text, kind, stacklevel=1)

    with pytest.warns(UserWarning, match="b") as warned:
        warn()
    assert notes == ["a", "a"]
    assert [str(one.message) for one in warned] == ["b", "b"]
