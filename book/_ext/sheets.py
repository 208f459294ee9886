"""The exercise sheets as pages: a fold says whether it hides a solution or tests.

nbgrader finds both by comments, "# BEGIN SOLUTION" for one, which a reader of the page does not
need.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

MARK = re.compile(r"^ *# (?:BEGIN|END) (SOLUTION|HIDDEN TESTS)\n?", re.MULTILINE)
CONTENT = {"SOLUTION": "the solution", "HIDDEN TESTS": "the tests"}


class Folds(SphinxTransform):
    """Takes the marks out of the code, and names the folds by them."""

    default_priority = 400

    def apply(self, **kwargs: object) -> None:
        for block in list(self.document.findall(nodes.literal_block)):
            if mark := MARK.search(block.astext()):
                code = MARK.sub("", block.astext()).rstrip()
                # Other text than the raw source would not be highlighted.
                block.rawsource = code
                block[:] = [nodes.Text(code)]
                cell = block.parent.parent
                cell["prompt_show"] = f"Show {CONTENT[mark[1]]}"
                cell["prompt_hide"] = f"Hide {CONTENT[mark[1]]}"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(Folds)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
