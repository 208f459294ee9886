"""A Sphinx extension: the first use of a term of the glossary on a page leads to its entry.

The glossary is a page with the directive ``{glossary}``. Headings, code, formulas, links, the
bibliography and the outputs of cells are left as they are, and so are terms that are also words of
everyday language.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from docutils import nodes
from linkable import is_inside, replace_matches
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

#: Terms that a page may use without meaning the entry.
EVERYDAY = frozenset({"advantage", "confidence", "credit", "slip", "step"})
#: Text inside these is not linked.
LEFT_ALONE = (
    nodes.FixedTextElement,
    nodes.caption,
    nodes.literal,
    nodes.math,
    nodes.raw,
    nodes.reference,
    nodes.rubric,
    nodes.term,
    nodes.thead,
    nodes.title,
    addnodes.desc_signature,
)
#: What cells print, and the titles of papers.
NOT_WRITTEN_HERE = frozenset({"cell_output", "references"})
CHAPTER = re.compile(r" Chapter \d\d\.$")
#: Commands of the glossary's formulas in plain text.
PLAIN = {"beta": "β", "exp": "exp", "log": "log ", "pi": "π", "sigma": "σ", "theta": "θ"}


@dataclass(frozen=True)
class Entry:
    """An entry of the glossary: its place, the names that lead there, and what it says."""

    docname: str
    anchor: str
    names: tuple[str, ...]
    text: str


@cache
def entries_of(env: BuildEnvironment) -> tuple[Entry, ...]:
    terms = [of for of in env.get_domain("std").get_objects() if of[2] == "term"]
    docnames = sorted({docname for _, _, _, docname, _, _ in terms})
    return tuple(entry for docname in docnames for entry in _entries_on(env, docname))


def _entries_on(env: BuildEnvironment, docname: str) -> Iterator[Entry]:
    for glossary in env.get_doctree(docname).findall(addnodes.glossary):
        for item in glossary.findall(nodes.definition_list_item):
            terms = [child for child in item if isinstance(child, nodes.term)]
            text = " ".join(plain(item.children[-1]).split())
            names = tuple(term.astext() for term in terms)
            yield Entry(docname, terms[0]["ids"][0], names, CHAPTER.sub("", text))


def plain(definition: nodes.Node) -> str:
    """The definition as a link's title shows it, which cannot set formulas."""
    definition = definition.deepcopy()
    for formula in list(definition.findall(nodes.math)):
        text = re.sub(r"\\text\{(.*?)\}|\\,", r"\1", formula.astext())
        text = re.sub(r"\\([a-z]+)", lambda command: PLAIN[command[1]], text)
        formula.parent.replace(formula, nodes.Text(text))
    return str(definition.astext())


def pattern_of(names: dict[str, Entry]) -> re.Pattern[str]:
    """Matches each name, in the plural too, as a whole word; of two the longer one."""
    longest_first = sorted(names, key=len, reverse=True)
    spellings = [f"[{n[0].upper()}{n[0]}]{re.escape(n[1:])}" for n in longest_first]
    return re.compile(rf"(?<![\w-])({'|'.join(spellings)})(s?)(?![\w-])")


def may_be_linked(text: nodes.Text) -> bool:
    return not is_inside(text, LEFT_ALONE, NOT_WRITTEN_HERE)


class Linker:
    """Links the terms on one page; each entry once."""

    def __init__(self, builder: Builder, docname: str, entries: tuple[Entry, ...]):
        self.builder, self.docname = builder, docname
        self.names = {name: of for of in entries for name in of.names if name not in EVERYDAY}
        self.linked: set[Entry] = set()

    def link(self, doctree: nodes.document) -> None:
        pattern = pattern_of(self.names)
        for text in list(doctree.findall(nodes.Text)):
            if may_be_linked(text):
                replace_matches(text, pattern, self.first_link)

    def first_link(self, term: re.Match[str]) -> nodes.reference | None:
        entry = self.entry_of(term[1])
        if entry in self.linked:
            return None
        self.linked.add(entry)
        name = nodes.Text(term[0])
        link = make_refnode(
            self.builder, self.docname, entry.docname, entry.anchor, name, entry.text
        )
        link["classes"].append("glossary-term")
        return link

    def entry_of(self, name: str) -> Entry:
        """The entry of a name that may stand at the beginning of a sentence."""
        return self.names.get(name) or self.names[name[0].lower() + name[1:]]


def link_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    entries = entries_of(app.env)
    if entries and docname not in {entry.docname for entry in entries}:
        Linker(app.builder, docname, entries).link(doctree)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-resolved", link_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
