"""Which scenes train, which choose, which measure: whole scenes, never chips."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from geoseg.data.config import SplitConfig
from geoseg.data.pairs import chosen, listed
from geoseg.errors import ConfigError

Part = str
"""Name of a part: train, validation or test."""

PARTS: tuple[Part, ...] = ("train", "validation", "test")


def split_names(
    names: Sequence[str], config: SplitConfig, *, trained: bool = True
) -> dict[Part, list[str]]:
    """Give each scene its part, or none.

    What is drawn by share depends on the seed and on the names only: a scene that is
    added changes little for the others.

    Args:
        names: Names of all scenes.
        config: Lists, and shares of the training's scenes for parts without names.
        trained: Some shall be left to train on.

    Returns:
        The names of each part, in the order of `names`.

    Raises:
        ConfigError: A name or pattern fits nothing, a scene has two parts, or no scene
            is left to train on.
    """
    patterns = {part: getattr(config, part) for part in PARTS}
    for part, wanted in patterns.items():
        for pattern in wanted:
            if not chosen(names, [pattern]):
                raise ConfigError(
                    f"data.split.{part} names {pattern}, and no scene is called so; "
                    f"there are {listed(names)}"
                )
    parts: dict[str, Part] = {}
    named = {part: chosen(names, patterns[part]) for part in PARTS}
    for name in names:
        fitting = [part for part in PARTS if name in named[part]]
        if len(fitting) > 1:
            raise ConfigError(
                f"scene {name} is in data.split.{fitting[0]} and in "
                f"data.split.{fitting[1]}; a scene has one part"
            )
        if fitting or not config.train:
            parts[name] = fitting[0] if fitting else "train"
    training = [name for name in names if parts.get(name) == "train"]
    # By a hash, so that a scene's place does not depend on which others there are.
    drawn = sorted(training, key=lambda name: _draw(config.seed, name))
    # A share fills what no name does: lists that are whole stay as they are.
    shares = shares_drawn(config)
    first = _count(shares.get("validation", 0.0), len(training))
    second = first + _count(shares.get("test", 0.0), len(training))
    parts |= dict.fromkeys(drawn[:first], "validation")
    parts |= dict.fromkeys(drawn[first:second], "test")
    result = {part: [n for n in names if parts.get(n) == part] for part in PARTS}
    if trained and not result["train"]:
        raise ConfigError(_none_left(len(names), shares))
    return result


def shares_drawn(config: SplitConfig) -> dict[Part, float]:
    """Return the shares that are drawn: of parts that no name fills."""
    shares = {part: getattr(config, f"{part}_share") for part in PARTS[1:]}
    return {n: share for n, share in shares.items() if share and not getattr(config, n)}


def _none_left(count: int, shares: Mapping[Part, float]) -> str:
    drawn = [f"data.split.{part}_share=0" for part in shares]
    text = f"data.split leaves none of the {count} scenes to train on"
    if not drawn:
        return f"{text}; change it"
    return (
        f"{text}: each share takes one at least; set {' or '.join(drawn)}, or add "
        "scenes (a large one may be cut: gdal_translate -srcwin)"
    )


def _count(share: float, total: int) -> int:
    """Return how many scenes a share is: one at least, if it is any."""
    return max(1, round(share * total)) if share > 0 else 0


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
