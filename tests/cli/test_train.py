"""`geoseg train` composes a recipe, shows progress, and says where the model is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import geoseg

from geoseg.pipelines.train import TrainConfig


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """Configurations of training runs, none of which trains."""
    seen: list[TrainConfig] = []

    def run(
        config: TrainConfig, progress: Callable[[int, dict[str, float]], None]
    ) -> Path:
        seen.append(config)
        progress(config.train.steps, {"loss": 0.5})
        return config.out / "model"

    monkeypatch.setattr("geoseg.pipelines.train.run", run)
    return seen


def test_train_runs_its_recipe(configs: list[TrainConfig]) -> None:
    result = geoseg("train", "--set", "data.root=here", "-o", "my runs")
    assert result.exit_code == 0
    (config,) = configs
    assert config.data.root == Path("here")
    assert config.out == Path("my runs")
    assert "Model: 'my runs/model'\n" in result.stdout
    assert "--model 'my runs/model'\n" in result.stdout


def test_set_wins_over_out(configs: list[TrainConfig]) -> None:
    flags = ["--set", "data.root=here", "--set", "out=there", "-q"]
    result = geoseg("train", "-c", "train-builtin", "-o", "here", *flags)
    assert (result.stdout, result.stderr) == ("", "")
    assert configs[0].out == Path("there")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "data.root"),
        (["--set", "data.root=x", "--set", "train.step=1"], "train.steps"),
        (["-c", "segment", "--set", "data.root=x"], "Error: "),
    ],
)
def test_a_wrong_recipe_trains_nothing(
    configs: list[TrainConfig], flags: list[str], message: str
) -> None:
    result = geoseg("train", *flags)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert configs == []
