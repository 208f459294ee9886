"""A Sphinx extension: a dotted name in a sentence or a cell may break after a dot.

The style sheet lets code break anywhere, or a page would scroll on a phone; a place that the page
marks comes first.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx

#: Two dots at least: a number or a file's name has one, and is short.
DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*){2,}")


def pieces(name: str) -> list[nodes.Node]:
    """The parts of a dotted name with a place to break behind each dot."""
    first, *others = re.findall(r"\w+\.?", name)
    found: list[nodes.Node] = [nodes.Text(first)]
    for part in others:
        found += [nodes.raw("", "<wbr>", format="html"), nodes.Text(part)]
    return found


def mark_names(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for literal in list(doctree.findall(nodes.literal)):
        name = literal.astext()
        if len(literal) == 1 and DOTTED_NAME.fullmatch(name):
            literal.replace(literal[0], pieces(name))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", mark_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
