"""A few kills of each process; `make soak` has many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
from soak import Soak, Victim, passed


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soak]:
    with Soak(tmp_path_factory.mktemp("soak")) as soak:
        yield soak


@pytest.mark.slow
@pytest.mark.parametrize("victim", get_args(Victim))
def test_a_run_whose_processes_are_killed_is_right_in_the_end(
    soak: Soak, victim: Victim
) -> None:
    trials = list(soak.trials(victim, kills=4))
    assert passed(trials), trials
