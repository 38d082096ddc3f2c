"""The mean of models with a common start is one; that of strangers is refused."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file
from trainings import configuration

from geoseg.config import dump
from geoseg.models.registry import load_model
from geoseg.pipelines.train import run

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def average(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("average_models")


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, Path]:
    """A model that was trained on made scenes, and its recipe."""
    config = configuration(tmp_path)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(dump(config))
    return run(config).folder, recipe


def changed(folder: Path, out: Path, factor: float) -> Path:
    """Write the same model with all of its weights scaled."""
    state = load_file(folder / "model.safetensors")
    out.mkdir()
    scaled = {
        name: value * factor if value.dtype.is_floating_point else value
        for name, value in state.items()
    }
    save_file(scaled, out / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "preprocessor_config.json"):
        (out / name).write_bytes((folder / name).read_bytes())
    return out


def test_weights_are_the_mean_in_float32(average: ModuleType) -> None:
    large = torch.tensor([60000.0], dtype=torch.float16)
    counter = torch.tensor(7)
    mean = average.mean_of([{"w": large, "n": counter}, {"w": large, "n": counter + 1}])
    assert mean["w"].dtype == torch.float16
    assert mean["w"].item() == large.item()  # the sum is beyond float16
    assert mean["n"] == 7


def run_script(
    average: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: Path | str
) -> None:
    monkeypatch.setattr(sys, "argv", ["average_models.py", *map(str, arguments)])
    average.main()


def test_the_mean_is_a_model_folder(
    average: ModuleType,
    trained: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, recipe = trained
    near = changed(folder, tmp_path / "near", 1.0001)
    common: list[Path | str] = ["--data", tmp_path / "scenes", "--recipe", recipe]
    run_script(average, monkeypatch, folder, near, *common, "-o", tmp_path / "mean")
    assert len(capsys.readouterr().out.splitlines()) == 3
    mean = load_model(tmp_path / "mean").state_dict()
    for name, value in load_model(folder).state_dict().items():
        torch.testing.assert_close(mean[name], value, rtol=1e-2, atol=1e-3)


def test_a_mean_that_is_worse_than_its_parts_is_refused(
    average: ModuleType,
    trained: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, recipe = trained
    common: list[Path | str] = ["--data", tmp_path / "scenes", "--recipe", recipe]
    for loss in (0.7, float("nan")):
        losses = iter([0.5, 0.6, loss])
        monkeypatch.setattr(average, "loss_of", lambda *_, known=losses: next(known))
        with pytest.raises(SystemExit, match="have no common start"):
            run_script(
                average, monkeypatch, folder, folder, *common, "-o", tmp_path / "mean"
            )
    with pytest.raises(SystemExit):
        run_script(average, monkeypatch, folder, folder, *common, "-o", folder)
    load_model(folder)  # still there
    assert not (tmp_path / "mean").exists()


def test_other_architectures_have_no_mean(
    average: ModuleType, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, _ = trained
    other = changed(folder, tmp_path / "other", 1.0)
    text = (other / "config.json").read_text()
    (other / "config.json").write_text(text.replace('"road"', '"track"'))
    with pytest.raises(SystemExit, match="is another model than"):
        average.write_mean([folder, other], tmp_path / "mean")


def test_the_order_of_keys_makes_no_other_architecture(
    average: ModuleType, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, _ = trained
    other = changed(folder, tmp_path / "other", 1.0)
    for name in ("config.json", "preprocessor_config.json"):
        values = json.loads((other / name).read_text())
        (other / name).write_text(json.dumps(dict(reversed(values.items()))))
    average.write_mean([folder, other], tmp_path / "mean")
    weights = load_file(tmp_path / "mean/model.safetensors")
    assert weights.keys() == load_file(folder / "model.safetensors").keys()
    load_model(tmp_path / "mean")
