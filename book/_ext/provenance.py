"""Directives that list what the book's numbers were made with; no number is written by hand.

``{result-files}`` lists the stored results with command, versions and seconds, and ``{run-times}``
the processor seconds of the chapters, as `make walkthrough` measured them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path("implicitprm") / "experiments" / "results"
RUN_TIMES = Path("notebooks") / "run_times.json"


def table_of(header: Sequence[str], rows: Sequence[Sequence[nodes.Node]]) -> nodes.table:
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in header), cols=len(header))
    head = [nodes.Text(title) for title in header]
    group += nodes.thead("", row_of(head))
    group += nodes.tbody("", *(row_of(row) for row in rows))
    return nodes.table("", group)


def row_of(cells: Sequence[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


class ResultFiles(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        rows = []
        for path in sorted((Path(self.env.srcdir) / RESULTS).glob("*.json")):
            self.env.note_dependency(str(path))
            result = json.loads(path.read_text(encoding="utf-8"))
            versions = " ".join(f"{name} {of}" for name, of in result["versions"].items())
            rows.append(
                [
                    nodes.literal("", path.stem),
                    nodes.literal("", result["command"].removeprefix("python -m ")),
                    nodes.Text(f"{result['seconds']:,}"),
                    nodes.Text(f"{result['device']}, Python {result['python']}, {versions}"),
                    nodes.literal("", result["config_hash"]),
                ]
            )
        return [table_of(("file", "command, after python -m", "seconds", "with", "hash"), rows)]


class RunTimes(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / RUN_TIMES
        self.env.note_dependency(str(path))
        times = json.loads(path.read_text(encoding="utf-8"))
        rows = [[nodes.literal("", name), nodes.Text(f"{of:.0f}")] for name, of in times.items()]
        rows.append([nodes.Text("all"), nodes.Text(f"{sum(times.values()):.0f}")])
        return [table_of(("chapter", "processor seconds"), rows)]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("result-files", ResultFiles)
    app.add_directive("run-times", RunTimes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
