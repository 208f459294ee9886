"""Directives that list what the book's numbers were made with; no number is written by hand.

``{result-files}`` lists the stored results with command, versions and seconds, and ``{run-times}``
the processor seconds of the chapters, as `make walkthrough` measured them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path("implicitprm") / "experiments" / "results"
RUN_TIMES = Path("notebooks") / "run_times.json"


def table_of(header: Sequence[str], rows: Sequence[Sequence[nodes.Node]], name: str) -> nodes.table:
    """A table of the class ``name``, whose columns are as wide as they need to be."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in header), cols=len(header))
    head = [nodes.Text(title) for title in header]
    group += nodes.thead("", row_of(head))
    group += nodes.tbody("", *(row_of(row) for row in rows))
    return nodes.table("", group, classes=[name, "colwidths-auto"])


def row_of(cells: Sequence[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def made_with(result: Mapping[str, Any]) -> str:
    versions = (f"{name} {of}" for name, of in result["versions"].items())
    return ", ".join([f"Python {result['python']}", *versions]) + f" on {result['device']}"


def said_of_versions(with_what: Mapping[str, str]) -> str:
    """What most files were made with, and each file that was made with something else."""
    usual = Counter(with_what.values()).most_common(1)[0][0]
    others = [f"{name}: {of}" for name, of in with_what.items() if of != usual]
    return "; ".join([f"Made with {usual}", *others]) + "."


class ResultFiles(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        rows, with_what = [], {}
        for path in sorted((Path(self.env.srcdir) / RESULTS).glob("*.json")):
            self.env.note_dependency(str(path))
            result = json.loads(path.read_text(encoding="utf-8"))
            with_what[path.stem] = made_with(result)
            rows.append(
                [
                    nodes.literal("", path.stem),
                    nodes.literal("", result["command"].removeprefix("python -m ")),
                    nodes.Text(f"{result['seconds']:,}"),
                    nodes.literal("", result["config_hash"]),
                ]
            )
        header = ("file", "command, after python -m", "seconds", "hash")
        versions = said_of_versions(with_what)
        return [nodes.paragraph("", versions), table_of(header, rows, "result-files")]


class RunTimes(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / RUN_TIMES
        self.env.note_dependency(str(path))
        times = json.loads(path.read_text(encoding="utf-8"))
        rows: list[list[nodes.Node]] = [
            [self.chapter(name), nodes.Text(f"{of:.0f}")] for name, of in times.items()
        ]
        rows.append([nodes.Text("sum"), nodes.Text(f"{sum(times.values()):.0f}")])
        return [table_of(("chapter", "processor seconds"), rows, "run-times")]

    def chapter(self, name: str) -> nodes.Node:
        """A link to a chapter, where the book has it."""
        docname = f"notebooks/{name}"
        if docname not in self.env.found_docs:
            return nodes.Text(name)
        return pending_xref(
            "",
            nodes.inline("", name),
            refdomain="std",
            reftype="doc",
            reftarget=f"/{docname}",
            refdoc=self.env.docname,
            refexplicit=True,
            refwarn=True,
        )


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("result-files", ResultFiles)
    app.add_directive("run-times", RunTimes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
