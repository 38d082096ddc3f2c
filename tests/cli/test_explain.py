"""`geoseg explain` passes on what to explain and says what it wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from commands import geoseg

from geoseg.cli.explain import KINDS
from geoseg.errors import ExplainError
from geoseg.pipelines.explain import ExplainConfig, Kind


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[ExplainConfig]:
    """Configurations of explanations, none of which runs; query 99 does not exist."""
    seen: list[ExplainConfig] = []

    def run(
        config: ExplainConfig, done: Callable[[int, int], None] | None = None
    ) -> list[Path]:
        seen.append(config)
        if done is not None:
            done(1, 2)
        if config.query == 99:
            raise ExplainError("there is no query 99; valid is 0 to 19")
        return [config.out / "masks.png"]

    monkeypatch.setattr("geoseg.pipelines.explain.run", run)
    return seen


def test_kinds_are_those_of_the_job() -> None:
    assert get_args(Kind) == KINDS


def test_explain_says_what_it_wrote(configs: list[ExplainConfig]) -> None:
    result = geoseg("explain", "masks", "a.tif", "--at", "1.5,-2", "-o", "why")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "why/masks.png\n"
    assert configs == [ExplainConfig("masks", "a.tif", Path("why"), at=(1.5, -2.0))]


def test_explain_takes_what_is_shown(configs: list[ExplainConfig]) -> None:
    flags = ["--window", "1,2,3,4", "--token", "register 1", "--layer", "2"]
    flags += ["--fusion", "max", "--discard", "0.5", "--class", "road", "--bands", "3"]
    result = geoseg("explain", "attention", "a.tif", "-o", "why", "-q", *flags)
    assert result.output == ""
    assert configs == [
        ExplainConfig(
            "attention",
            "a.tif",
            Path("why"),
            window=(1, 2, 3, 4),
            token="register 1",
            layer=2,
            fusion="max",
            discard=0.5,
            class_name="road",
            bands=(3,),
        )
    ]


def test_what_does_not_exist_is_one_line(configs: list[ExplainConfig]) -> None:
    result = geoseg("explain", "masks", "a.tif", "--query", "99", "-o", "why")
    assert len(configs) == 1
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "Error: there is no query 99; valid is 0 to 19"
    )


def test_an_unknown_kind_is_told_with_the_others() -> None:
    result = geoseg("explain", "hue", "a.tif", "-o", "why")
    assert result.exit_code == 2
    assert "'patches', 'attention'" in result.stderr
