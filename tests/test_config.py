"""Recipes compose into plain dicts; the converter accepts what its types say."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from geoseg.config import compose, convert, dump, override, pipeline_names
from geoseg.errors import ConfigError, TilingError


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    stride: int | None = None
    kind: Literal["hann", "none"] = "hann"

    def __post_init__(self) -> None:
        if self.stride == 0:
            raise ValueError("stride must be positive; leave it out for the default")
        if self.stride == -1:
            raise TilingError("stride -1 does not fit; use 1")


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    resolution: float | Literal["auto", "native"] = "auto"
    bands: tuple[int, ...] | None = None
    bbox: tuple[float, float, float, float] | None = None
    nodata: float | None = None
    root: Path | None = None
    options: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    name: str
    window: Window = dataclasses.field(default_factory=Window)
    scene: Scene = dataclasses.field(default_factory=Scene)
    verbose: bool = False
    factor: float = 1.0


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_our_pipelines_are_known_by_name() -> None:
    assert {"segment", "train-builtin"} <= set(pipeline_names())


def test_a_named_pipeline_composes_to_plain_values() -> None:
    config = compose("segment")
    assert config["tiling"]["window"] == "hann"
    assert config["cluster"]["threads"] == 2
    assert type(config) is dict
    assert type(config["model"]) is dict
    assert type(config["model"]["imports"]) is list
    assert "hydra" not in config


@pytest.mark.parametrize(
    ("text", "section", "key", "value"),
    [
        ("tiling.stride=480", "tiling", "stride", 480),
        ("input.resolution=0.25", "input", "resolution", 0.25),
        ("input.bands=[3,2,1]", "input", "bands", [3, 2, 1]),
        ("output.overwrite=true", "output", "overwrite", True),
        ("model.path=/a b/c", "model", "path", "/a b/c"),
        ("cluster.scheduler=null", "cluster", "scheduler", None),
        ("tiling.unheard=1", "tiling", "unheard", 1),
    ],
)
def test_an_override_sets_a_typed_value(
    text: str, section: str, key: str, value: object
) -> None:
    found = compose("segment", [text])[section][key]
    assert found == value
    assert type(found) is type(value)


def test_an_override_chooses_a_part() -> None:
    chosen = ["clusters=scheduler", "cluster.scheduler=tcp://h:1"]
    assert compose("segment", chosen)["cluster"]["scheduler"] == "tcp://h:1"


def test_a_file_of_the_users_builds_on_our_recipes(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    write(tmp_path / "models" / "mine.yaml", "# @package model\npath: mine\n")
    path = write(
        tmp_path / "my run.yaml",
        "defaults:\n  - segment\n  - models: mine\n  - _self_\n"
        "tiling:\n  stride: 100\nmodel:\n  batch_size: ${tiling.stride}\n",
    )
    config = compose(path, ["tiling.space=probabilities"])
    assert config["tiling"]["stride"] == 100
    assert config["tiling"]["space"] == "probabilities"
    assert config["tiling"]["window"] == "hann"
    assert config["model"]["path"] == "mine"
    assert config["model"]["batch_size"] == 100


def test_a_file_without_defaults_stands_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "own.yaml", "name: x\n")
    assert compose(path, ["window.stride=3"]) == {"name": "x", "window": {"stride": 3}}


@pytest.mark.parametrize("folder", ["plain", "a b'c", "c,=[d]", "${x}", "é {}"])
def test_any_folder_name_works(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    path = write(tmp_path / folder / "own.yaml", "defaults: [segment, _self_]\na: 1\n")
    assert compose(path)["a"] == 1


SPECIAL = st.text("\\'\"${}[],=:~ #a1", max_size=8)
PLAIN = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12)


@given(st.one_of(SPECIAL, PLAIN))
def test_an_override_keeps_any_text(text: str) -> None:
    assert compose("segment", [override("model.path", text)])["model"]["path"] == text


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, 0.25, -1e-9, "1e3", "null", "", [1, 2], ["a b", None], {}),
        {"a": 1, "b_c": ["#e2a929", {"d": None}]},
    ],
)
def test_an_override_keeps_the_type(value: object) -> None:
    found = compose("segment", [override("model.path", value)])["model"]["path"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("segmnt", [], "did you mean segment?"),
        ("missing.yaml", [], "no such file"),
        ("sub/missing", [], "no such file"),
        ("run.yml", [], "rename it to run.yaml"),
        ("segment", ["tiling.stride"], "key=value"),
        ("segment", ["tiling.stride=[1"], "'tiling.stride=[1'"),
        ("segment", ["tiling.stride=1,2"], "tiling.stride=1,2"),
        ("segment", ["clusters=locall"], "'clusters/locall'"),
        ("segment", ["clusters=scheduler"], "set it with --set cluster.scheduler="),
        ("segment", ["model.path=${nope}"], "'nope' not found"),
        ("segment", ["~nope"], "'nope' does not exist"),
        ("segment", ["=3"], "=3"),
    ],
)
def test_what_cannot_be_composed_is_one_line(
    name: str, overrides: list[str], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(name, overrides)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "search path" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"a: [1\nb: 2\n",
        b"defaults: [nothing]\n",
        b"defaults:\n  - clusters: nothing\n",
        b"defaults: 3\n",
        b"- 1\n",
        b"\xff\xfe\x00a: 1",
        b"a: b: c\n",
        b"hydra:\n  searchpath: 3\n",
    ],
)
def test_a_broken_file_is_one_line_that_names_it(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml") as caught:
        compose(str(path))
    assert "\n" not in str(caught.value)


def test_composing_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compose("segment")
        with pytest.raises(ConfigError):
            compose("segment", ["clusters=nothing"])
    assert Path.cwd() == tmp_path
    assert not list(tmp_path.iterdir())
    assert not GlobalHydra.instance().is_initialized()
    assert not OmegaConf.has_resolver("hydra")
    assert capfd.readouterr() == ("", "")


def test_composing_works_inside_a_hydra_application(tmp_path: Path) -> None:
    write(tmp_path / "outer.yaml", "a: 1\n")
    with initialize_config_dir(str(tmp_path), version_base="1.2"):
        outer = GlobalHydra.instance()
        assert compose("segment")["tiling"]["window"] == "hann"
        assert GlobalHydra.instance() is outer
        assert hydra_compose("outer").a == 1


def test_composing_in_threads_does_not_mix() -> None:
    found: dict[int, int] = {}

    def work(stride: int) -> None:
        config = compose("segment", [f"tiling.stride={stride}"])
        found[stride] = config["tiling"]["stride"]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: n for n in range(1, 9)}


def test_sections_become_dataclasses() -> None:
    config = convert(
        {
            "name": "x",
            "window": {"stride": 624, "kind": "none"},
            "scene": {
                "resolution": 1,
                "bands": [3, 2, 1],
                "bbox": [0, 1, 2, 3.5],
                "root": "a/b",
                "nodata": math.nan,
                "options": {"zoom": 2},
            },
            "verbose": True,
            "factor": 2,
        },
        Config,
    )
    assert config.window == Window(624, "none")
    assert config.scene.resolution == 1.0
    assert type(config.scene.resolution) is float
    assert config.scene.bands == (3, 2, 1)
    assert config.scene.bbox == (0.0, 1.0, 2.0, 3.5)
    assert config.scene.root == Path("a/b")
    assert config.scene.nodata is not None
    assert math.isnan(config.scene.nodata)
    assert config.scene.options == {"zoom": 2.0}
    assert config.verbose is True
    assert type(config.factor) is float


def test_absent_values_and_empty_sections_keep_their_defaults() -> None:
    assert convert({"name": "x", "window": None}, Config) == Config("x")


@pytest.mark.parametrize("value", ["auto", "native", 0.25])
def test_a_union_takes_each_of_its_members(value: float | str) -> None:
    found = convert({"name": "x", "scene": {"resolution": value}}, Config)
    assert found.scene.resolution == value


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "name is missing; set it with --set name="),
        ({"name": "x", "windw": {}}, "unknown key windw; did you mean window?"),
        (
            {"name": "x", "window": {"strid": 1}},
            "unknown key window.strid; did you mean window.stride?",
        ),
        ({"name": "x", "zzz": 1}, "unknown key zzz; the sections are name, window"),
        ({"name": "x", "window": 3}, "window must be a section"),
        (
            {"name": "x", "window": {"stride": "wide"}},
            "window.stride must be a whole number or null, not 'wide'; set it with",
        ),
        ({"name": "x", "window": {"stride": 1.0}}, "window.stride must be"),
        ({"name": "x", "window": {"stride": True}}, "window.stride must be"),
        ({"name": "x", "window": {"kind": "haan"}}, "hann or none, not 'haan'"),
        ({"name": "x", "window": {"kind": None}}, "hann or none, not None"),
        ({"name": "x", "window": {"stride": 0}}, "window: stride must be positive"),
        ({"name": "x", "scene": {"resolution": "fine"}}, "a number or auto or native"),
        ({"name": "x", "scene": {"resolution": True}}, "scene.resolution must be"),
        ({"name": "x", "scene": {"bands": [1, "2"]}}, "scene.bands must be a list"),
        ({"name": "x", "scene": {"bands": "123"}}, "scene.bands must be a list"),
        ({"name": "x", "scene": {"bbox": [1, 2, 3]}}, "a list of 4: a number"),
        ({"name": "x", "scene": {"nodata": math.inf}}, "scene.nodata must be"),
        ({"name": "x", "scene": {"root": ""}}, "a path or null, not ''"),
        ({"name": "x", "scene": {"options": [1]}}, "scene.options must be a section"),
        ({"name": "x", "scene": {"options": {"a": "b"}}}, "scene.options must be"),
        ({"name": "x", "verbose": 1}, "verbose must be true or false, not 1"),
        ({"name": "x", "verbose": "yes"}, "verbose must be true or false, not 'yes'"),
        ({"name": "x", "factor": None}, "factor must be a number, not None"),
        ({"name": 3}, "name must be text, not 3"),
    ],
)
def test_what_does_not_fit_is_named_by_its_dotted_key(
    data: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(data, Config)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_of_ours_from_a_dataclass_stays_as_it_is() -> None:
    with pytest.raises(TilingError, match="use 1"):
        convert({"name": "x", "window": {"stride": -1}}, Config)


@pytest.mark.parametrize(
    "name", ["x", "1e3", "null", "true", "0x10", "1_000", "3:30", ".5e1", "", " a: b"]
)
def test_a_dump_reads_back_as_the_same_configuration(tmp_path: Path, name: str) -> None:
    config = Config(
        name,
        Window(3),
        Scene(1e-7, (1, 2), (0.0, 1.0, 2.0, 3.0), None, Path("r"), {"a": 1e20}),
    )
    text = dump(config)
    assert convert(yaml.safe_load(text), Config) == config
    assert convert(compose(write(tmp_path / "run.yaml", text)), Config) == config


def test_a_dump_keeps_nan() -> None:
    found = yaml.safe_load(dump(Scene(nodata=math.nan)))
    assert math.isnan(found["nodata"])


def test_recipes_are_found_from_any_folder(tmp_path: Path) -> None:
    code = "from geoseg.config import compose; print(compose('segment')['tiling'])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "hann" in done.stdout
    assert not list(tmp_path.iterdir())
