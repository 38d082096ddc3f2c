"""What a trained model declares: of its recipe, and of the images that were seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import Mask2FormerForUniversalSegmentation

from geoseg.data.bands import Kind, check_alike, kinds_of
from geoseg.data.config import DataConfig
from geoseg.data.files import FileScene
from geoseg.data.labelled import LabelledSource
from geoseg.errors import ConfigError, TilingError
from geoseg.io.radiometry import band_names
from geoseg.models.configuration import TIMM
from geoseg.models.export import Declared
from geoseg.models.presets import PRETRAINED
from geoseg.models.registry import patch_size
from geoseg.tiling import check_tile_size
from geoseg.types import ChosenBands, ModelSpec

if TYPE_CHECKING:
    from geoseg.pipelines.train import TrainConfig
    from geoseg.pipelines.train_scenes import TrainingScenes


def describe(
    model: Mask2FormerForUniversalSegmentation, config: TrainConfig
) -> ModelSpec:
    """Check that model and data fit, and describe what will come out.

    Returns:
        All but what only the images tell: `declared_by` has that.

    Raises:
        ConfigError: The model takes other bands.
        TilingError: A size holds no whole number of patches.
    """
    patch = patch_size(model.config)
    sizes = {
        "chips.size": config.chips.size,
        "train.final_chip_size": config.train.final_chip_size,
        "tile_size": config.tile_size,
    }
    for key, size in sizes.items():
        try:
            check_tile_size(size, patch)
        except TilingError as error:
            raise TilingError(f"{key}: {error}") from error
    data = config.data
    _check_channels(model, config)
    return ModelSpec(
        name=config.out.name,
        tile_size=config.tile_size,
        patch_size=patch,
        classes=tuple(data.table.infos),
        bands=band_names(data.bands, len(data.mean)),
        scale=(),
        mean=data.mean,
        std=data.std,
        resolution=data.resolution,
        weights_sha256="",
    )


def declared_by(config: TrainConfig, scenes: TrainingScenes) -> Declared:
    """Return what the finished model declares.

    Args:
        config: The recipe.
        scenes: What is learned from, and validated on.

    Raises:
        ConfigError: Bands were chosen that are other ones in other images.
        SceneError: An image cannot be read any more.
    """
    data = config.data
    trained = scenes.trained.sources
    kinds: tuple[Kind, ...] = ()
    if data.bands is not None:
        found = kinds_of(trained)
        kinds = tuple(sorted(found))
        check_alike(data.bands, kinds_of(scenes.judged.sources) | found)
    return {
        "classes": data.table.infos,
        "bands": band_names(data.bands, len(data.mean), kinds),
        "chosen": ChosenBands(data.bands, kinds) if data.bands and kinds else None,
        "scale": _scale(data, trained),
        "mean": data.mean,
        "std": data.std,
        "tile_size": config.tile_size,
        "resolution": data.resolution,
    }


def _check_channels(
    model: Mask2FormerForUniversalSegmentation, config: TrainConfig
) -> None:
    # What the first convolution takes.
    channels = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels
    count = len(config.data.mean)
    if count == channels:
        return
    text = (
        f"data.mean and data.std have {count} numbers, and the model takes {channels} "
        f"bands; choose {channels} with data.bands"
    )
    if count < channels:
        text += f", {[1] * channels} of images with one"
    text += ", and give a mean and std for each"
    if count > channels and not config.model.get(PRETRAINED):
        adapter: Any = model.config.backbone_config
        kind = getattr(getattr(adapter, "backbone_config", None), "model_type", None)
        key = "model_args.in_chans" if kind == TIMM else "num_channels"
        key = f"model.backbone_config.backbone_config.{key}"
        text += f"; or build a model that takes all: {key}={count}"
    raise ConfigError(text)


def _scale(data: DataConfig, trained: Sequence[LabelledSource]) -> dict[str, float]:
    """What means 1.0, by the types of numbers that hold it.

    Only those that were seen: what means 1.0 in others, nobody knows.
    """
    dtypes = {scene.scene.dtype for scene in trained if isinstance(scene, FileScene)}
    return dict.fromkeys(sorted(dtypes) or ["uint8"], data.scale or 255.0)
