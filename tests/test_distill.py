"""What the built-in model's encoder is taught with, before any label."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18

from geoseg.config import compose, convert, override
from geoseg.pipelines.train import TrainConfig

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def distill(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("distill_builtin")


def save_teacher(path: Path) -> None:
    """Write random weights by the names that geoembed gives them."""
    network = resnet18()
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    arrays = {"embed_dim": np.array([256], np.int32)}
    for key, value in network.state_dict().items():
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked"):
            name = key.replace(".downsample.", ".short.")
            name = name.replace("conv1.weight", "stem.0.weight", name[:5] == "conv1")
            name = f"stem.1.{name[4:]}" if name.startswith("bn1.") else name
            arrays[f"bb.{name}"] = value.numpy()
    np.savez(path, allow_pickle=False, **arrays)


def test_targets_are_the_teachers_features_at_one_stride(
    distill: ModuleType, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    save_teacher(tmp_path / "v3.npz")
    teacher = distill.Teacher(tmp_path / "v3.npz")
    features = [teacher(torch.rand(3, 64, 64)) for _ in range(4)]
    assert features[0]["layer3"].shape == (256, 16, 16)
    assert features[0]["layer4"].shape == (512, 8, 8)
    axes = distill.components(features)
    targets = torch.stack([distill.project(one, axes) for one in features])
    assert targets.shape == (4, 64 + 32, 16, 16)
    # Lengths of the first axes are not all of it, and their mean is one.
    layer3 = targets[:, 64:].transpose(0, 1).flatten(1)
    assert layer3.mean(1).abs().max() < 0.2
    assert layer3.var(1).mean() == pytest.approx(1, abs=0.1)
    assert layer3.var(1)[0] > layer3.var(1)[-1]
    np.savez(tmp_path / "other.npz", weight=np.zeros(1))
    with pytest.raises(SystemExit, match=r"is not geoembed's v3\.npz$"):
        distill.Teacher(tmp_path / "other.npz")


def test_features_turn_with_their_image(distill: ModuleType) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    seen = distill.Seen(images, F.avg_pool2d(images.float() / 255, 4).half())
    chips = distill.SeenChips([seen], color=0.0)
    found: list[tuple[Tensor, Tensor]] = [
        chips.batch(0, step, 4, 32) for step in (0, 1)
    ]
    for drawn, features in found:
        expected = F.avg_pool2d(drawn, 4)
        torch.testing.assert_close(features, expected, rtol=0, atol=1e-3)
    again, _ = chips.batch(0, 1, 4, 32)
    assert torch.equal(again, found[1][0])
    assert not torch.equal(again, found[0][0])
    # Colours change for the student only.
    recolored, features = distill.SeenChips([seen], color=0.5).batch(0, 1, 1, 32)
    assert not torch.equal(recolored, again[:1])
    assert torch.equal(features, found[1][1][:1])


def test_all_before_the_queries_is_taught(distill: ModuleType) -> None:
    settings = [override("data.root", "nowhere")]
    recipe = convert(compose("train-builtin", settings), TrainConfig)
    student = distill.Student(recipe, 5)
    guesses = student(pixel_values=torch.rand(2, 3, 64, 64)).logits
    assert guesses.shape == (2, 2, 96, 16, 16)
    distill.imitation(guesses, torch.rand(2, 96, 16, 16)).backward()
    level = student.model.model.pixel_level_module
    idle = [
        name for name, parameter in level.named_parameters() if parameter.grad is None
    ]
    assert idle == ["encoder.backbone.embeddings.mask_token"]
    rest = student.model.model.transformer_module.parameters()
    assert all(parameter.grad is None for parameter in rest)


def test_a_guess_is_measured_where_it_can_be_right(distill: ModuleType) -> None:
    features = torch.rand(1, 4, 8, 8)
    coarse = F.interpolate(F.avg_pool2d(features, 4), scale_factor=4)
    perfect = torch.stack([features, coarse], 1)
    assert distill.imitation(perfect, features) < 1e-9
    for wrong in range(2):
        guesses = perfect.clone()
        guesses[:, wrong] += 0.5
        # Both parts count alike: smooth L1 of a half.
        assert distill.imitation(guesses, features) == pytest.approx(0.125)
