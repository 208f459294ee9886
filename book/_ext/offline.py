"""A Sphinx extension: the book asks no other host for anything and opens from file://.

Jupyter Book loads MathJax and thebe from content delivery networks. MathJax is copied out of a
Python package instead, the part that renders TeX with its own fonts; thebe, which sends code to a
server on the internet, is left out.
"""

from __future__ import annotations

import shutil
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

#: What TeX as HTML needs of MathJax: 1.5 MB. The package's own extension would copy 24 MB.
MATHJAX_PARTS = ("tex-chtml.js", "output/chtml/fonts/woff-v2")


def copy_mathjax(app: Sphinx) -> None:
    package = distribution("sphinx-mathjax-offline")
    source = Path(str(package.locate_file("sphinx-mathjax-offline"))) / "static" / "mathjax"
    for part in MATHJAX_PARTS:
        target = Path(app.outdir) / "_static" / "mathjax" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source / part, target)


def drop_thebe_configuration(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for node in list(doctree.findall(nodes.raw)):
        if "x-thebe-config" in node.astext() or "kernelName = " in node.astext():
            node.parent.remove(node)


def drop_thebe_scripts(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    def of_thebe(script: Any) -> bool:
        words = f"{script.filename or ''} {script.attributes.get('body', '')}"
        return "thebe" in words.lower()

    context["script_files"] = [s for s in context["script_files"] if not of_thebe(s)]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", copy_mathjax)
    # Late: after thebe's own extension has added what is removed here.
    app.connect("doctree-resolved", drop_thebe_configuration, priority=900)
    app.connect("html-page-context", drop_thebe_scripts, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
