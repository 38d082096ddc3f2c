"""Run the notebooks of docs/onboarding and make pages of them, with what they show.

They are kept as text, in jupytext's Markdown. Each runs in a kernel of its own;
nbconvert makes Markdown of what came out, so that it becomes a page like any other. A
cell that raises ends the build. (Pages of mkdocs-jupyter take scripts from other
servers, carry 0.6 MB of styles each, and stay in a cache when geoseg changes.)
"""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path

import jupytext
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode
from traitlets.config import Config

FOLDER = "onboarding/"

_ENCRYPTED = Config({"KernelManager": {"transport_encryption": "auto"}})
"""Kernels warn of connections that others on the machine could read."""

_ENVIRONMENT = {
    **os.environ,
    # tqdm asks for ipywidgets wherever there is a kernel; pages have no widgets.
    "PYTHONWARNINGS": "ignore:IProgress not found",
}

_TEMPLATE = """\
{%- extends "markdown/index.md.j2" -%}
{% macro printed(text) %}
``` { .text .printed }
{{ text | strip_ansi | trim("\n") }}
```
{% endmacro %}
{% block stream %}{{ printed(output.text) }}{% endblock stream %}
{% block data_text scoped %}{{ printed(output.data["text/plain"]) }}{% endblock %}
"""
"""What cells print, in a block that looks otherwise than code."""

_log = logging.getLogger("mkdocs.hooks.notebooks")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put a page, and the pictures on it, in the place of each notebook."""
    for file in files.documentation_pages():
        if not file.src_uri.startswith(FOLDER) or file.abs_src_path is None:
            continue
        notebook = jupytext.read(file.abs_src_path)
        if "kernelspec" not in notebook.metadata:
            continue
        run(notebook, Path(file.abs_src_path))
        files.remove(file)
        for uri, content in page(notebook, file.src_uri).items():
            files.append(File.generated(config, uri, content=content))
    return files


def run(notebook: NotebookNode, path: Path) -> None:
    """Run all cells, in the notebook's folder.

    Raises:
        CellExecutionError: A cell raised.
    """
    started = time.perf_counter()
    NotebookClient(
        notebook,
        timeout=300,
        # Other work may keep a machine from starting a kernel in a minute.
        startup_timeout=300,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
        config=_ENCRYPTED,
    ).execute(env=_ENVIRONMENT)
    _log.info("%s ran in %.0f s", path.name, time.perf_counter() - started)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                # A warning fails strict builds: it would be printed on the page.
                _log.warning("%s writes to stderr: %s", path.name, output.text)


def page(notebook: NotebookNode, uri: str) -> dict[str, str | bytes]:
    """Return the page of a notebook that has run, and its pictures, by their paths."""
    stem = Path(uri).stem
    body, resources = MarkdownExporter(raw_template=_TEMPLATE).from_notebook_node(
        notebook, {"unique_key": "figure", "output_files_dir": f"{stem}-figures"}
    )
    # Figures are wider than a page: each opens in its own size.
    body = re.sub(r"!\[png\]\((.+?)\)", r"[![Figure](\1)](\1)", body)
    pictures = {FOLDER + name: data for name, data in resources["outputs"].items()}
    return {uri: body, **pictures}
