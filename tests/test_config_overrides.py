"""Overrides beside folders of their names, and those that hold several values."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoseg.config import choices, compose, override
from geoseg.errors import ConfigError


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_values_that_are_compared_may_be_quoted() -> None:
    key, values = choices("model.path='runs/a=1/model','b,c'")
    assert (key, values) == ("model.path", ["runs/a=1/model", "b,c"])
    told = r"^cannot read the setting .* quotes each, \"key='a','b'\""
    with pytest.raises(ConfigError, match=told):
        choices("model.path=runs/a=1/model,b")


@pytest.mark.parametrize("inside", [[], ["run.yaml"]])
def test_a_folder_beside_a_recipe_is_no_part_of_it(
    tmp_path: Path, inside: list[str]
) -> None:
    """The results of the first call must not break the same call again."""
    path = write(
        tmp_path / "mine.yaml",
        "defaults: [segment, {tables: one}, _self_]\nnote: ${out}/x\n",
    )
    (tmp_path / "tables").mkdir()
    for name in ("one", "two"):
        write(
            tmp_path / "tables" / f"{name}.yaml", f"# @package _global_\ntable: {name}"
        )
    text = "a 'b',${c}"
    for folder in ("out", "note"):
        (tmp_path / folder).mkdir()
        for name in inside:
            write(tmp_path / folder / name, "a: 1\n")
    settings = [override("out", text), "tables=two", "tiling.overlap=1"]
    composed = compose(path, settings)
    assert (composed["out"], composed["note"]) == (text, f"{text}/x")
    assert (composed["table"], composed["tiling"]["overlap"]) == ("two", 1)
    assert compose(path, [*settings, "note=null"])["note"] is None
    with pytest.raises(ConfigError, match="cannot read the setting 'out=a=b'"):
        compose(path, ["out=a=b"])
    with pytest.raises(ConfigError, match=r"^out=a,b has several values; write a list"):
        compose(path, ["out=a,b"])
    assert compose(path, ["++out=b"])["out"] == "b"
    # A recipe that includes it has the same parts to choose from.
    top = write(tmp_path / "top.yaml", "defaults: [mine, _self_]\n")
    assert compose(top, ["tables=two", "out=b"])["table"] == "two"
