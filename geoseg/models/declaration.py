"""What a configuration and a preprocessor say of classes and of pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig

from geoseg.errors import ModelError
from geoseg.types import (
    NODATA,
    ChosenBands,
    ClassInfo,
    distinct_color,
    writable,
)


def read_classes(
    config: PreTrainedConfig, declared: Mapping[str, Any]
) -> tuple[ClassInfo, ...]:
    """Class table in the order of the logits; colours are made up if none is declared.

    Args:
        config: The model's configuration; its labels count if nothing is declared.
        declared: What it declares for geoseg.

    Raises:
        ModelError: There are more classes than an 8-bit mask holds.
        KeyError, TypeError, ValueError: The declaration is malformed.
    """
    labels: dict[Any, str] = config.id2label or {}
    names = [writable(str(labels[index])) for index in sorted(labels)]
    if len(names) > NODATA:
        raise ModelError(
            f"the model has {len(names)} classes; a class mask of 8 bits holds {NODATA}"
        )
    if "classes" not in declared:
        return tuple(
            ClassInfo(i, name, distinct_color(i)) for i, name in enumerate(names)
        )
    table = tuple(
        ClassInfo(int(entry["id"]), writable(str(entry["name"])), _rgb(entry["color"]))
        for entry in declared["classes"]
    )
    ids = {entry.id for entry in table}
    if len(table) != len(names) or len(ids) != len(table):
        raise ValueError(f"{len(names)} logits, but {len(ids)} class ids")
    if not ids <= set(range(NODATA)):
        raise ValueError(f"class ids {sorted(ids)} are not all within 0..{NODATA - 1}")
    return table


def read_pixels(
    given: Mapping[str, Any], config: PreTrainedConfig, declared: Mapping[str, Any]
) -> dict[str, Any]:
    """How pixels become input: `bands`, `scale`, `mean` and `std` of a `ModelSpec`.

    Args:
        given: Content of a preprocessor's file; empty if there is none.
        config: The model's configuration.
        declared: What it declares for geoseg.

    Raises:
        AttributeError, TypeError, ValueError: One of them is malformed.
    """
    channels = getattr(config, "num_channels", None)
    bands = tuple(declared.get("bands") or _band_names(channels))
    rescale = given.get("do_rescale", True)
    factor = (given.get("rescale_factor") or 1 / 255) if rescale else 1.0
    scale = declared.get("scale") or {"uint8": 1 / factor}
    if given.get("do_flip_channel_order"):
        bands = bands[::-1]  # Trained on BGR, as MobileViT.
    # Absent where it is off: transformers saves the means all the same.
    normalize = given.get("do_normalize", False)
    mean = tuple((given.get("image_mean") if normalize else None) or (0.0,))
    std = tuple((given.get("image_std") if normalize else None) or (1.0,))
    # One number is one for all bands, as transformers has it.
    mean, std = (v * len(bands) if len(v) == 1 else v for v in (mean, std))
    if not len(mean) == len(std) == len(bands):
        raise ValueError(f"{len(bands)} bands, but {len(mean)} means, {len(std)} stds")
    return {
        "bands": bands,
        "scale": tuple((dtype, float(dn)) for dtype, dn in sorted(scale.items())),
        "mean": tuple(map(float, mean)),
        "std": tuple(map(float, std)),
    }


def read_chosen(declared: Mapping[str, Any], count: int) -> ChosenBands | None:
    """Bands that the model's training took of its images.

    Args:
        declared: What it declares for geoseg.
        count: Bands that it takes.

    Raises:
        KeyError, TypeError, ValueError: It is malformed.
    """
    chosen = declared.get("chosen_bands")
    if chosen is None:
        return None
    numbers = tuple(int(number) for number in chosen["numbers"])
    if len(numbers) != count or min(numbers) < 1:
        raise ValueError(
            f"chosen bands {list(numbers)} are not {count} that count from 1"
        )
    return ChosenBands(numbers, tuple(tuple(map(str, kind)) for kind in chosen["of"]))


def _band_names(channels: int | None) -> tuple[str, ...]:
    if channels in (None, 3):
        return ("red", "green", "blue")
    return tuple(f"band {index}" for index in range(1, channels + 1))


def _rgb(color: Sequence[int]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in color)
    return red, green, blue
