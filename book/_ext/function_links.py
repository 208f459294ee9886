"""Names of the package in the text link to its pages: `step_rewards` in a chapter, for one.

The chapters say such names in backticks, which JupyterLab shows as they are; here, at build time,
the first use on a page becomes a link. A heading stays as it is, and so does what a cell printed.
What an exercise sheet asks for is the learner's own function, whatever the package has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from docutils import nodes
from linkable import is_inside
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

#: Of these the last part of the name will do: `ImplicitPRM`.
ALONE = frozenset({"class", "exception", "function"})
#: Of these the class must be there too: `ImplicitPRM.score`.
OF_A_CLASS = frozenset({"attribute", "method", "property"})
#: Where a name is no use of it, or a link already.
NOT_LINKED = (nodes.title, nodes.reference, nodes.literal_block)
#: Outputs show what they show, an exercise names the arguments of a function to be written, and a
#: result file may have the name of a function.
NO_PROSE = frozenset({"cell_output", "exercise", "result-files"})
#: On these pages a name that the code defines is that function, and not the package's.
SHEETS = "notebooks/exercises/"
DEFINITION = re.compile(r"^def (\w+)", re.MULTILINE)
IMPORT = re.compile(r"^from (implicitprm[\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)

Names = dict[str, set[str]]


def short_names(objects: Mapping[str, str]) -> Names:
    """What a text may call the objects (full name → type): name → the full names it may mean."""
    found: Names = {}
    for full, kind in objects.items():
        parts = full.split(".")
        fewest = {**dict.fromkeys(ALONE, 1), **dict.fromkeys(OF_A_CLASS, 2)}.get(kind, len(parts))
        for length in range(fewest, len(parts) + 1):
            found.setdefault(".".join(parts[-length:]), set()).add(full)
    return found


def imported_names(code: Iterable[str]) -> dict[str, str]:
    """What a page's code imports from the package: name → module."""
    found = {}
    for source in code:
        for module, names in IMPORT.findall(source):
            found |= {name.split()[0]: module for name in re.findall(r"\w[\w ]*", names)}
    return found


def meant(text: str, names: Names, imported: Mapping[str, str]) -> str | None:
    """The full name of the object that the code ``text`` names, if it is one and only one.

    A word without capital or underscore may be anything, a column or a file; it is a function
    where the page imports it.
    """
    name = text.partition("(")[0]
    found = names.get(name, set())
    if name in imported:
        found = {full for full in found if full.startswith(imported[name] + ".")}
    elif text.islower() and not set("_.(") & set(text):
        return None
    return next(iter(found)) if len(found) == 1 else None


def is_prose(node: nodes.Node) -> bool:
    return not is_inside(node, NOT_LINKED, NO_PROSE)


def link_names(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    if docname.startswith("book/api/"):
        return  # docstrings have roles for their links, and ``rewards`` there is a parameter
    objects: dict[str, Any] = app.env.domaindata["py"]["objects"]
    names = short_names({full: entry.objtype for full, entry in objects.items()})
    code = [block.astext() for block in doctree.findall(nodes.literal_block)]
    imported = imported_names(code)
    if docname.startswith(SHEETS):
        for name in DEFINITION.findall("\n".join(code)):
            names.pop(name, None)
    seen = set()
    for node in list(doctree.findall(nodes.literal)):
        full = meant(node.astext(), names, imported)
        if full is None or full in seen or not is_prose(node):
            continue
        seen.add(full)
        entry = objects[full]
        content = nodes.literal("", node.astext(), classes=["py"])
        node.replace_self(
            make_refnode(app.builder, docname, entry.docname, entry.node_id, content, full)
        )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
