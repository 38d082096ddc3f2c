"""The patches of `make mutants` fit the code, and the tests that they name are there.

Whether the tests notice takes longer, and is what `make mutants` tells.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from mutants.run import FOLDER, ROOT, apply, read_mutant


@pytest.mark.parametrize("patch", sorted(FOLDER.glob("*.patch")), ids=lambda p: p.stem)
def test_patch_fits_and_its_test_exists(patch: Path) -> None:
    assert apply(patch, ROOT, "--check")
    path, name = read_mutant(patch).test.split("::")
    tree = ast.parse((ROOT / path).read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert name.partition("[")[0] in defined


def test_patch_that_does_not_fit_is_told(tmp_path: Path) -> None:
    patch = tmp_path / "other.patch"
    patch.write_text("--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-nothing\n+else\n")
    assert not apply(patch, ROOT, "--check")
