"""A Sphinx extension: "arXiv 2412.01981" in a page becomes a citation of the book's bibliography.

A chapter is also read in JupyterLab, where a citation's role would be left as it is typed. So the
source names a paper by its arXiv number, plain or as a link, and the entry of references.bib with
that ``eprint`` is cited when the book is built: as "Yuan et al. (2024)", and inside parentheses as
"Yuan et al., 2024". A number without an entry is a warning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from docutils import nodes
from linkable import is_inside, replace_matches
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.nodes import make_refnode
from sphinxcontrib.bibtex.citation_target import CitationTarget
from sphinxcontrib.bibtex.plugin import register_plugin
from sphinxcontrib.bibtex.roles import CitationRef
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle

logger = logging.getLogger(__name__)

#: A paper as the sources name it; a docstring may break the line between the two words.
PAPER = re.compile(r"\barXiv[:\s]\s*(\d{4}\.\d{5})(?!\d)")
ADDRESS = re.compile(r"https?://arxiv\.org/abs/(\d{4}\.\d{5})")
#: What stands in these is no text of a sentence.
NO_SENTENCE = (nodes.literal, nodes.literal_block, nodes.math, nodes.raw, nodes.title)
#: How the style ends a list of authors that goes on; the chapters write it otherwise.
AND_OTHERS = re.compile(r",? and others\b\.?")
CHAPTER = re.compile(r"notebooks/(exercises/)?(\d\d)_")


def round_brackets() -> BracketStyle:
    return BracketStyle(left="(", right=")")


@dataclass
class RoundAuthorYear(AuthorYearReferenceStyle):
    """Author and year with round brackets; those of the extension are square."""

    bracket_textual: BracketStyle = field(default_factory=round_brackets)
    bracket_parenthetical: BracketStyle = field(default_factory=round_brackets)


def unclosed(text: str) -> int:
    """How many more parentheses ``text`` opens than it closes."""
    return text.count("(") - text.count(")")


def bibliography(environment: BuildEnvironment) -> Any:
    """The domain of citations, whose attributes its base class does not have."""
    return environment.get_domain("cite")


class CitePapers(SphinxTransform):
    """Replace the papers in a document by references to be resolved in the domain ``cite``."""

    default_priority = 210  # after the parts of the document exist, before references are resolved

    def apply(self, **kwargs: Any) -> None:
        entries = bibliography(self.env).bibdata.data.entries
        self.keys = {entry.fields.get("eprint"): key for key, entry in entries.items()}
        for block in list(self.document.findall(nodes.TextElement)):
            self.cite_in(block)

    def cite_in(self, block: nodes.TextElement) -> None:
        """Cite the papers in the direct children of a paragraph, a cell or an inline element."""
        before = ""
        for child in list(block.children):
            if isinstance(child, nodes.reference):
                self.cite_link(child, before)
            elif isinstance(child, nodes.Text) and not is_inside(child, NO_SENTENCE):
                self.cite_text(child, before)
            if not isinstance(child, nodes.math):
                before += child.astext()

    def cite_link(self, link: nodes.reference, before: str) -> None:
        """Replace a link to a paper's page whose text is no more than the paper's number."""
        address = ADDRESS.fullmatch(link.get("refuri", ""))
        text = PAPER.fullmatch(link.astext())
        if address and text and address[1] == text[1]:
            link.replace_self(self.citation(text[1], before, link.astext(), link))

    def cite_text(self, text: nodes.Text, before: str) -> None:
        def cited(paper: re.Match[str]) -> nodes.Node:
            before_paper = before + text[: paper.start()]
            return self.citation(paper[1], before_paper, paper[0], text.parent)

        replace_matches(text, PAPER, cited)

    def citation(self, number: str, before: str, text: str, place: nodes.Node) -> nodes.Node:
        """A reference to the entry of a paper that stands behind the text ``before``."""
        key = self.keys.get(number)
        if key is None:
            logger.warning("no entry of the bibliography has eprint %s", number, location=place)
            return nodes.Text(text)
        node = pending_xref(
            "",
            nodes.inline("", text),
            refdomain="cite",
            reftype="alp" if unclosed(before) > 0 else "t",
            reftarget=key,
            refdoc=self.env.docname,
            refwarn=True,
        )
        node.source, node.line = place.source, place.line
        self.document.note_explicit_target(node, node)
        reference = CitationRef(
            node["ids"][0], self.env.docname, place.line or 0, [CitationTarget(key, "", "")]
        )
        bibliography(self.env).citation_refs.append(reference)
        return node


def short_name(docname: str, title: str) -> str:
    """A chapter by its number, a sheet of exercises by its own, another page by its title."""
    chapter = CHAPTER.match(docname)
    if chapter is None:
        return title
    return f"sheet {chapter[2]}" if chapter[1] else chapter[2]


class PlainList(SphinxPostTransform):
    """Make the bibliography a list of HTML, and add to each entry the pages that cite it.

    The writer gives citations the role of a list whose children have a role that a list may not
    contain, which readers of screens cannot make sense of.
    """

    default_priority = 6  # after the entries exist, before references to them are resolved

    def run(self, **kwargs: Any) -> None:
        for container in list(self.document.findall(nodes.container)):
            entries = [child for child in container if isinstance(child, nodes.citation)]
            if entries and len(entries) == len(container):
                items = nodes.bullet_list("", classes=["references"])
                items += [self.item(entry) for entry in entries]
                container.replace_self(items)

    def item(self, entry: nodes.citation) -> nodes.list_item:
        _, text = entry.children  # a label, which author and year make superfluous
        for part in list(text.findall(nodes.Text)):
            part.parent.replace(part, nodes.Text(AND_OTHERS.sub(" et al.", part)))
        pages = self.pages_that_cite(entry["ids"][0])
        if pages:
            text += [nodes.Text(" Cited in "), *pages, nodes.Text(".")]
        return nodes.list_item("", text, ids=entry["ids"])

    def pages_that_cite(self, entry_id: str) -> list[nodes.Node]:
        """Links to the pages, in their order, with commas between them."""
        domain = bibliography(self.env)
        (key,) = [of.key for of in domain.citations if of.citation_id == entry_id]
        citing = {
            reference.docname
            for reference in domain.citation_refs
            if key in [target.key for target in reference.targets]
        }
        links: list[nodes.Node] = []
        for docname in filter(citing.__contains__, self.env.collect_relations()):
            title = self.env.titles[docname].astext()
            name = nodes.Text(short_name(docname, title))
            links.append(make_refnode(self.app.builder, self.env.docname, docname, "", name, title))
            links.append(nodes.Text(", "))
        return links[:-1]


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinxcontrib.bibtex")
    register_plugin("sphinxcontrib.bibtex.style.referencing", "author_year_round", RoundAuthorYear)
    app.add_transform(CitePapers)
    app.add_post_transform(PlainList)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
