"""Mutated inputs of reader and vectorizer end in pixels or in an error of ours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from class_rasters import class_mask, write_classes, write_own
from fuzz_probes import pool, probe
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rasters import NORTH_UP, UTM, write_raster

pytestmark = pytest.mark.slow

SECONDS = 30
"""A probe that takes longer hangs."""

VRT = """\
<VRTDataset rasterXSize="40" rasterYSize="30"><SRS>EPSG:32631</SRS>
<GeoTransform>500000.25, 0.5, 0, 5800000.75, 0, -0.5</GeoTransform>
<VRTRasterBand dataType="Byte" band="1"><NoDataValue>255</NoDataValue>
<CategoryNames><Category>water</Category><Category>land</Category></CategoryNames>
<SimpleSource><SourceFilename relativeToVRT="1">whole.tif</SourceFilename>
<SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="40" ySize="30"/>
<DstRect xOff="0" yOff="0" xSize="40" ySize="30"/></SimpleSource></VRTRasterBand>
</VRTDataset>
"""

KINDS = {
    "whole.tif": "scene",
    "deflate.tif": "scene",
    "tiled.tif": "scene",
    "scene.vrt": "scene",
    "strips.tif": "classes",
    "own.tif": "classes",
    "classes.vrt": "classes",
    "aoi.gpkg": "aoi",
    "aoi.geojson": "aoi",
}
"""Whole file -> what its mutations go through."""

# Where, in thousandths of the file; what is done; with what.
EDITS = st.lists(
    st.tuples(
        st.integers(0, 999),
        st.sampled_from(["set", "flip", "insert", "delete", "cut", "repeat"]),
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=6,
)


def mutated(content: bytes, edits: list[tuple[int, str, bytes]]) -> bytes:
    """Apply edits one after the other."""
    for where, what, data in edits:
        place = len(content) * where // 1000
        before, after = content[:place], content[place:]
        length = len(data)
        if what == "set":
            content = before + data + after[length:]
        elif what == "flip":
            content = before + bytes(b ^ 255 for b in after[:length]) + after[length:]
        elif what == "insert":
            content = before + data + after
        elif what == "delete":
            content = before + after[length:]
        elif what == "repeat":
            content = before + after[: 16 * length] + after
        else:
            content = before or content
    return content


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of whole files."""
    folder = tmp_path_factory.mktemp("seeds")
    image = np.random.default_rng(0).integers(1, 255, (3, 30, 40)).astype(np.uint8)
    write_raster(folder / "whole.tif", image)
    write_raster(folder / "deflate.tif", image, compress="deflate", nodata=3)
    write_raster(folder / "tiled.tif", image, tiled=True, blockxsize=16, blockysize=16)
    (folder / "scene.vrt").write_text(VRT)
    write_classes(folder / "strips.tif", class_mask(40))
    write_own(folder / "own.tif", class_mask(40))
    (folder / "classes.vrt").write_text(VRT)
    left, top = NORTH_UP.c, NORTH_UP.f
    area = shapely.box(left + 2, top - 10, left + 12, top - 2)
    table = gpd.GeoDataFrame(geometry=[area], crs=UTM)
    table.to_file(folder / "aoi.gpkg")
    table.to_file(folder / "aoi.geojson")
    return folder


class Prober:
    """A process that probes files, and another one when that dies."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, kind: str, path: Path) -> str | None:
        """Return the error of ours that the file ends in."""
        self._pool = self._pool or pool()
        try:
            return self._pool.submit(probe, kind, path).result(timeout=SECONDS)
        except (BrokenProcessPool, TimeoutError):
            self.close()
            raise

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            for process in self._pool._processes.values():
                process.kill()
            self._pool.shutdown()
            self._pool = None


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    """A process for all tests here."""
    made = Prober()
    yield made
    made.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, seeds: Path) -> Path:
    """Where mutated files lie, beside the whole one that some name."""
    made = tmp_path_factory.mktemp("mutated")
    shutil.copy(seeds / "whole.tif", made)
    return made


def test_whole_files_are_fine(seeds: Path, prober: Prober, folder: Path) -> None:
    for name, kind in KINDS.items():
        path = folder / f"fine-{name}"
        shutil.copy(seeds / name, path)
        assert prober(kind, path) is None, name


@settings(
    max_examples=1500,
    # None is made smaller: where one hangs, each attempt would take as long.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(name=st.sampled_from(sorted(KINDS)), edits=EDITS)
def test_mutated_files_end_in_an_error_of_ours_or_in_results(
    name: str,
    edits: list[tuple[int, str, bytes]],
    seeds: Path,
    prober: Prober,
    folder: Path,
) -> None:
    path = folder / f"mutated-{name}"
    path.write_bytes(mutated((seeds / name).read_bytes(), edits))
    said = prober(KINDS[name], path)
    assert said is None or (said and "\n" not in said), said
