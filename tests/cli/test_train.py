"""`geoseg train` composes a recipe, shows progress, and says where the model is."""

from __future__ import annotations

import csv
import re
import warnings
from pathlib import Path

import pytest
from commands import geoseg

from geoseg.cli import display, train_progress
from geoseg.cli.train import EPILOG
from geoseg.cli.train_progress import TrainingProgress
from geoseg.config import combinations, compose, convert
from geoseg.errors import (
    AgreedError,
    ConfigError,
    GeosegWarning,
    OutputError,
    SceneError,
    TrainingError,
)
from geoseg.pipelines.train import TrainConfig, Trained
from geoseg.training.fit import Outcome
from geoseg.training.progress import Listener, Score

HERE = ["--set", "data.root=here"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the folder that `HERE` names."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """Configurations of training runs, none of which trains."""
    seen: list[TrainConfig] = []

    def run(config: TrainConfig, listener: Listener) -> Trained:
        seen.append(config)
        if config.train.learning_rate > 0.1:
            raise TrainingError("the loss is nan")
        listener.step(config.train.steps, {"loss": 0.5})
        miou = 0.5 + config.train.learning_rate
        return Trained(config.out / "model", Outcome(config.train.steps, 7, miou))

    monkeypatch.setattr("geoseg.pipelines.train.run", run)
    return seen


def test_train_runs_its_recipe(configs: list[TrainConfig]) -> None:
    result = geoseg("train", *HERE, "-o", "my runs")
    assert result.exit_code == 0, result.stderr
    (config,) = configs
    assert config.data.root == Path("here")
    assert config.out == Path("my runs")
    assert "Model: 'my runs/model'\n" in result.stdout
    assert "--model 'my runs/model'\n" in result.stdout


def test_set_wins_over_out(configs: list[TrainConfig]) -> None:
    flags = [*HERE, "--set", "out=there", "-q"]
    result = geoseg("train", "-c", "train-builtin", "-o", "here", *flags)
    assert (result.stdout, result.stderr) == ("", "")
    assert configs[0].out == Path("there")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "data.root"),
        ([*HERE, "--set", "train.step=1"], "train.steps"),
        (["-c", "segment", *HERE], "Error: "),
        ([*HERE, "--set", "train.seed=1,2"], "add --multirun"),
        ([*HERE, "--multirun"], "several values"),
        ([*HERE, "--multirun", "--set", "train.seed=1,x"], "train.seed"),
        ([*HERE, "--multirun", "--set", "train.devices=2,4"], "on one device"),
        ([*HERE, "--set", "train.seed=[1"], "cannot read"),
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


def test_a_sweep_trains_each_combination_and_shows_a_table(
    configs: list[TrainConfig], tmp_path: Path
) -> None:
    swept = ["--set", "train.learning_rate=1e-3,3e-3", "--set", "train.seed=0,1"]
    size = ["--set", "chips.size=64"]
    result = geoseg("train", "--multirun", *HERE, *swept, *size, "-o", tmp_path)
    assert result.exit_code == 0, result.stderr
    found = [(c.train.learning_rate, c.train.seed, c.chips.size) for c in configs]
    assert found == [(lr, seed, 64) for lr in (1e-3, 3e-3) for seed in (0, 1)]
    assert configs[1].out == tmp_path / "train.learning_rate=0.001,train.seed=1"
    assert len({config.out for config in configs}) == 4
    rows = [line.split() for line in result.stdout.splitlines() if "0.50" in line]
    assert [row[2] for row in rows] == ["0.503", "0.503", "0.501", "0.501"]
    with (tmp_path / "sweep.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["train.seed"] for row in table] == ["0", "1", "0", "1"]
    assert table[2]["miou"] == "0.503"


def test_a_training_that_fails_does_not_end_the_sweep(
    configs: list[TrainConfig], tmp_path: Path
) -> None:
    swept = ["--set", "train.learning_rate=0.5,0.001"]
    result = geoseg("train", "--multirun", *HERE, *swept, "-o", tmp_path)
    assert result.exit_code == 1
    assert len(configs) == 2
    assert "Error: 1 of 2 trainings failed: the loss is nan" in result.stderr
    assert "failed" in result.stdout
    assert "0.501" in result.stdout


@pytest.mark.parametrize(
    "error", [SceneError("b.tif is cut off"), ConfigError("bands"), OutputError("full")]
)
def test_no_error_of_one_training_ends_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def run(config: TrainConfig, _: Listener) -> Trained:
        if config.train.seed == 0:
            raise error
        return Trained(config.out / "model", Outcome(8, 4, None))

    monkeypatch.setattr("geoseg.pipelines.train.run", run)
    swept = ["--set", "train.seed=0,1"]
    result = geoseg("train", "--multirun", *HERE, *swept, "-o", tmp_path)
    assert result.exit_code == 1
    assert f"1 of 2 trainings failed: {error}" in result.stderr
    with (tmp_path / "sweep.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["error"] for row in table] == [str(error), ""]
    # The step is known, the score is not.
    rows = [line.split()[:4] for line in result.stdout.splitlines()]
    assert ["1", "-", "4", "8"] in rows


def test_a_sweep_does_not_begin_where_a_model_is(
    configs: list[TrainConfig], tmp_path: Path
) -> None:
    (tmp_path / "train.seed=1" / "model").mkdir(parents=True)
    swept = ["--set", "train.seed=0,1"]
    result = geoseg("train", "--multirun", *HERE, *swept, "-o", tmp_path)
    assert result.exit_code == 2
    assert "no training in" in result.stderr
    assert configs == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--set", "data.root=nowhere"], "data.root: nowhere is no folder"),
        (["-o", "file/runs"], "file/runs"),
    ],
)
def test_a_sweep_that_cannot_begin_says_why(
    configs: list[TrainConfig], tmp_path: Path, settings: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    swept = ["--set", "train.seed=0,1"]
    result = geoseg("train", "--multirun", *HERE, *swept, *settings)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "unexpected" not in result.stderr


def test_combinations_are_of_what_varies() -> None:
    assert combinations(["a=1", "b=[1,2]", "c='x,y'"]) == [()]
    assert combinations(["a=1,2", "b=3", "c=range(0,2)"]) == [
        ("a=1", "c=0"),
        ("a=1", "c=1"),
        ("a=2", "c=0"),
        ("a=2", "c=1"),
    ]
    with pytest.raises(ConfigError, match="cannot read"):
        combinations(["a=[1"])


def test_the_recipe_in_the_help_is_one(tmp_path: Path) -> None:
    text = re.search(r"(?m)^  defaults:.*?(?=\n\n)", EPILOG, re.DOTALL)
    assert text is not None
    path = tmp_path / "mine.yaml"
    path.write_text(re.sub("(?m)^  ", "", text[0]) + "\n")
    config = convert(compose(str(path)), TrainConfig)
    assert [entry.name for entry in config.data.classes] == ["roof", "other"]
    assert config.data.images == "images/{stem}.*"
    assert config.out == Path("runs/mine")


def test_training_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geoseg.cli.train.find_spec", lambda _: None)
    result = geoseg("train", *HERE)
    assert result.exit_code == 2
    assert "pip install 'geoseg[train]'" in result.stderr


def test_warnings_are_said_once_as_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(config: TrainConfig, _: Listener) -> Trained:
        for text in ("a is left out: it is cut short", "no pixel is road") * 2:
            warnings.warn(text, GeosegWarning, stacklevel=1)
        warnings.warn("some library's", UserWarning, stacklevel=1)
        return Trained(config.out / "model", Outcome(4, None, None))

    monkeypatch.setattr("geoseg.pipelines.train.run", run)
    result = geoseg("train", *HERE)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines() == [
        "Note: a is left out: it is cut short",
        "Note: no pixel is road",
    ]
    swept = geoseg("train", *HERE, "--multirun", "--set", "train.seed=0,1")
    assert swept.stderr.count("Note: no pixel is road") == 2
    assert geoseg("train", *HERE, "-q").stderr == ""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AgreedError("the loss is nan"), ""),
        (TrainingError("the GPU's memory is full"), "the GPU's memory is full"),
        (ConfigError("bands"), "bands"),
        (ValueError("odd"), "unexpected ValueError: odd; run it again with -vv for"),
    ],
)
def test_processes_after_the_first_one_tell_only_what_that_does_not(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def run(config: TrainConfig) -> Trained:
        warnings.warn("a is left out", GeosegWarning, stacklevel=1)
        raise error

    monkeypatch.setattr("geoseg.pipelines.train.run", run)
    monkeypatch.setattr("geoseg.pipelines.train.is_first_process", lambda _: False)
    result = geoseg("train", *HERE, "-v")
    assert result.exit_code == (2 if isinstance(error, ConfigError) else 1)
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {told}" if told else "")
    assert result.stderr.count("\n") == bool(told)


def test_training_tells_its_loss_and_its_scores(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    for module in (display, train_progress):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    with TrainingProgress(100) as shown:
        shown.step(60, {"loss": 2.5})
        now[0] += 20
        shown.step(80, {"loss": 1.25})
        shown.validated(Score(80, 0.4567, (0.4, 0.5), 0.75), best=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "Training: step 80/100, loss 1.25, 0:20 left",
        "Step 80: mIoU 0.457, accuracy 0.750 on the validation scenes, the best so far",
    ]


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (True, "interrupted; run the same command again to go on from the checkpoint"),
        (False, "interrupted before the first checkpoint; the same command starts"),
    ],
)
def test_ctrl_c_promises_no_checkpoint_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool, told: str
) -> None:
    def interrupted(config: TrainConfig, _: Listener) -> Trained:
        if kept:
            (config.out / "last.ckpt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("geoseg.pipelines.train.run", interrupted)
    done = geoseg("train", *HERE, "-o", str(tmp_path))
    assert done.exit_code == 130
    assert told in done.stderr
