"""The documentation: notebooks run when it is built, and pages fetch nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parents[1]
ONBOARDING = sorted((ROOT / "docs" / "onboarding").glob("[0-9]-*.md"))

HEAD = """\
---
jupyter:
  kernelspec:
    display_name: Python 3
    language: python
    name: python3
---
# A notebook
"""


def build(folder: Path, notebook: str) -> subprocess.CompletedProcess[str]:
    """Build a site with the repository's settings and one notebook."""
    pages = folder / "docs" / "onboarding"
    pages.mkdir(parents=True)
    (pages / "1-test.md").write_text(HEAD + notebook)
    hooks = [ROOT / "docs" / "hooks" / f"{name}.py" for name in HOOKS]
    config = folder / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\n"
        "docs_dir: docs\nsite_dir: site\nextra_css: []\nnot_in_nav: ''\n"
        "nav: [onboarding/1-test.md]\nplugins: [search]\n"
        f"hooks: {[str(hook) for hook in hooks]}\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )


HOOKS = ("notebooks", "equations")


@pytest.mark.slow
def test_a_notebook_is_a_page_with_what_its_cells_show(tmp_path: Path) -> None:
    notebook = """
Inline $x_1$ and displayed:

$$
\\frac{a}{b} < 1
$$

```python
from io import BytesIO

from IPython.display import Image
from PIL import Image as Pillow

from geoseg.explain.patches import patch_grid

print(len(patch_grid(720, 16)), "patches")
stream = BytesIO()
Pillow.new("RGB", (4, 4)).save(stream, "png")
Image(stream.getvalue())
```
"""
    done = build(tmp_path, notebook)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "site" / "onboarding"
    page = (folder / "1-test.html").read_text()
    assert "2025 patches" in page
    (picture,) = (folder / "1-test-figures").iterdir()
    assert f'src="1-test-figures/{picture.name}"' in page
    assert page.count("<math") == 2
    assert "<mfrac>" in page
    # Nothing that a browser would ask another server for.
    assert not re.findall(r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//', page)
    assert not re.findall(r'<link[^>]* rel="stylesheet"[^>]*"(?:https?:)?//', page)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (
            "from geoseg.explain.patches import patch_grid\n\npatch_grid(700, 16)",
            "TilingError",
        ),
        ("import warnings\n\nwarnings.warn('old')", "writes to stderr"),
    ],
)
def test_what_goes_wrong_in_a_cell_ends_the_build(
    tmp_path: Path, cell: str, told: str
) -> None:
    done = build(tmp_path, f"\n```python\n{cell}\n```\n")
    assert done.returncode != 0
    assert told in done.stderr


@pytest.mark.parametrize("path", ONBOARDING, ids=lambda path: path.stem)
def test_onboarding_is_text_that_runs_geoseg(path: Path) -> None:
    notebook = jupytext.read(path)
    assert notebook.metadata.kernelspec.language == "python"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code = "\n".join(cell.source for cell in cells)
    compile(code, path, "exec")
    assert "geoseg" in code
    assert "![" not in path.read_text(), "figures are made when the site is built"


@pytest.mark.parametrize("path", ONBOARDING, ids=lambda path: path.stem)
def test_the_map_of_the_code_leads_somewhere(path: Path) -> None:
    _, _, table = path.read_text().partition("## In the code")
    named = 0
    for row in re.findall(r"^\| .* \| (.*) \|$", table, re.MULTILINE)[1:]:
        folder = ROOT
        for name in re.findall(r"`([\w/*.-]+)`", row):
            if "/" in name:  # Bare names are files beside the one before them.
                folder = (ROOT / name).parent
            if "/" in name or name.endswith(".py"):
                assert list(folder.glob(Path(name).name)), name
                named += 1
    assert named >= 3


def test_every_decision_is_in_the_list() -> None:
    folder = ROOT / "docs" / "decisions"
    text = (folder / "index.md").read_text()
    for page in folder.glob("0*.md"):
        title = page.read_text().splitlines()[0].removeprefix("# ")
        assert f"- [{title}]({page.name})" in text
