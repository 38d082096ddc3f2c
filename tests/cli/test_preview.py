"""`geoseg preview` passes on what to draw and says what it drew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import geoseg

from geoseg.pipelines.preview import PreviewConfig


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[PreviewConfig]:
    """Configurations of previews, none of which draws; scene "bad" fails."""
    seen: list[PreviewConfig] = []

    def run(
        config: PreviewConfig, drawn: Callable[[Path], None]
    ) -> list[tuple[str, str]]:
        seen.append(config)
        drawn(Path("out/good/preview.png"))
        return [("bad", "it is broken")] if "bad" in config.scenes else []

    monkeypatch.setattr("geoseg.pipelines.preview.run", run)
    return seen


def test_preview_says_what_it_drew(configs: list[PreviewConfig]) -> None:
    result = geoseg("preview", "out")
    assert result.exit_code == 0
    assert result.output == "out/good/preview.png\n"
    assert configs == [PreviewConfig(Path("out"))]


def test_preview_takes_scenes_file_and_width(configs: list[PreviewConfig]) -> None:
    flags = ["--scene", "a", "--scene", "b", "-o", "x.png", "--width", "900"]
    assert geoseg("preview", "out", *flags, "-q").output == ""
    assert configs == [PreviewConfig(Path("out"), ("a", "b"), Path("x.png"), 900)]


def test_a_scene_that_cannot_be_drawn_is_named(configs: list[PreviewConfig]) -> None:
    result = geoseg("preview", "out", "--scene", "bad")
    assert len(configs) == 1
    assert result.exit_code == 1
    assert result.stderr == "Error: bad: it is broken\n"


def test_a_folder_without_results_is_wrong_usage(tmp_path: Path) -> None:
    result = geoseg("preview", tmp_path)
    assert result.exit_code == 2
    assert "holds no finished scene" in result.stderr
