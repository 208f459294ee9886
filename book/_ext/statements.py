"""Propositions, proofs and exercises, found in the chapters' plain Markdown.

sphinx-proof and sphinx-exercise bring directives for them. In a notebook a directive shows as its
raw source in JupyterLab, so the chapters have none. A paragraph that starts with **Proposition
3.1** is one, with the formulas below it; its proof starts with **Proof** and ends with ∎. A
section whose heading starts with "Exercise:" holds an exercise, and its solution in the first code
cell. Each mention of a proposition becomes a link to it. Labels are `proposition-3-1` (for
``{prf:ref}``) and `exercise-05`, by chapter (for ``{ref}``).
"""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import PurePosixPath

from docutils import nodes
from linkable import is_inside, replace_matches
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx_exercise.nodes import (
    exercise_node,
    exercise_subtitle,
    exercise_title,
    solution_node,
    solution_title,
)

PROPOSITION = re.compile(r"Proposition (\d+\.\d+)")
END_OF_PROOF = "∎"
EXERCISE = "Exercise: "
#: Where a mention is no prose, or is a link already.
NOT_LINKED = (nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.raw)

logger = logging.getLogger(__name__)


def label_of(number: str) -> str:
    return f"proposition-{number.replace('.', '-')}"


def opening(paragraph: nodes.Element) -> nodes.Node | None:
    """What a paragraph starts with if that is emphasised; an empty text may stand before it."""
    parts = [node for node in paragraph.children[:2] if node.astext()]
    return parts[0] if parts and isinstance(parts[0], nodes.emphasis | nodes.strong) else None


def first_words(paragraph: nodes.Element) -> str:
    """The emphasised text that a paragraph starts with, without a full stop."""
    node = opening(paragraph)
    return node.astext().rstrip(".") if node else ""


def siblings_after(node: nodes.Node) -> list[nodes.Node]:
    return node.parent.children[node.parent.index(node) + 1 :]


def split_title(paragraph: nodes.paragraph) -> nodes.title:
    """Take what stands before the first full stop or colon out of a paragraph, as a title."""
    title = nodes.title()
    for node in list(paragraph.children):
        paragraph.remove(node)
        end = re.search(r"[.:]\s+", node.astext()) if isinstance(node, nodes.Text) else None
        if end:
            title += nodes.Text(node.astext()[: end.start()])
            paragraph.insert(0, nodes.Text(node.astext()[end.end() :]))
            break
        title += node.children if isinstance(node, nodes.strong) else node
    return title


def box(inside: list[nodes.Node], **attributes: list[str]) -> nodes.admonition:
    """Put nodes that follow each other into an admonition in their place."""
    node = nodes.admonition(**attributes)
    inside[0].parent.insert(inside[0].parent.index(inside[0]), node)
    for part in inside:
        part.parent.remove(part)
        node += part
    return node


class Statements(SphinxTransform):
    """Puts propositions and proofs into boxes and makes them known to sphinx-proof."""

    default_priority = 400

    def apply(self, **kwargs: object) -> None:
        label = ""
        for paragraph in list(self.document.findall(nodes.paragraph)):
            words = first_words(paragraph)
            if match := PROPOSITION.fullmatch(words):
                label = label_of(match[1])
                self.state(paragraph, label)
            elif words == "Proof" and label:
                self.prove(paragraph, label)

    def state(self, paragraph: nodes.paragraph, label: str) -> None:
        formulas = takewhile(lambda n: isinstance(n, nodes.math_block), siblings_after(paragraph))
        statement = box([paragraph, *formulas], classes=["proof", "proposition"], ids=[label])
        statement.insert(0, split_title(paragraph))
        known = self.env.__dict__.setdefault("proof_list", {})
        if label in known and known[label]["docname"] != self.env.docname:
            logger.warning("%s is stated on another page too", label, location=statement)
        kind = {"countertype": "proposition", "realtype": "proposition", "nonumber": True}
        known[label] = {"docname": self.env.docname, "ids": [label], "label": label, "prio": 0}
        known[label] |= kind

    def prove(self, paragraph: nodes.paragraph, label: str) -> None:
        inside: list[nodes.Node] = []
        for node in (paragraph, *siblings_after(paragraph)):
            inside.append(node)
            if END_OF_PROOF in node.astext():
                box(inside, classes=["proof"], ids=[f"proof-of-{label}"])
                return
        logger.warning("the proof of %s has no %s", label, END_OF_PROOF, location=paragraph)


class Mentions(SphinxPostTransform):
    """Links the mentions of propositions; sphinx-proof resolves them, or says that it cannot."""

    default_priority = 5  # before references are resolved

    def run(self, **kwargs: object) -> None:
        for text in list(self.document.findall(nodes.Text)):
            if not is_inside(text, NOT_LINKED, {"cell_output"}):
                replace_matches(text, PROPOSITION, self.link)

    def link(self, proposition: re.Match[str]) -> addnodes.pending_xref:
        return addnodes.pending_xref(
            "",
            nodes.inline("", proposition[0]),
            refdoc=self.env.docname,
            refdomain="prf",
            reftype="ref",
            reftarget=label_of(proposition[1]),
            refexplicit=True,
            refwarn=True,
        )


class Exercises(SphinxTransform):
    """Puts the task into a box of sphinx-exercise, and its solution into one that opens."""

    default_priority = 401

    def apply(self, **kwargs: object) -> None:
        for section in list(self.document.findall(nodes.section)):
            if section[0].astext().startswith(EXERCISE):
                self.frame(section)

    def frame(self, section: nodes.section) -> None:
        task = list(takewhile(lambda n: "cell" not in n.get("classes", ()), section.children[1:]))
        code = section.children[1 + len(task) :]
        label = f"exercise-{PurePosixPath(self.env.docname).name.partition('_')[0]}"
        title = exercise_title("", "Exercise")
        if how_long := self.how_long(task[0]):
            title += exercise_subtitle("", how_long)
        self.put(exercise_node(), "exercise", label, title, task)
        if code:
            node = solution_node(target_label=label, classes=["dropdown"])
            title = solution_title("", "Solution")
            self.put(node, "solution", f"solution-{label}", title, code[:1])

    def how_long(self, paragraph: nodes.Element) -> str:
        """Take the emphasised start of the task out: "About ten minutes, easy."."""
        text = first_words(paragraph)
        if text:
            del paragraph[: paragraph.index(opening(paragraph)) + 1]
            paragraph[0] = nodes.Text(paragraph[0].astext().lstrip())
        return text[:1].lower() + text[1:]

    def put(
        self,
        node: nodes.Element,
        kind: str,
        label: str,
        title: nodes.title,
        inside: list[nodes.Node],
    ) -> None:
        """What sphinx-exercise's directive does with its content, with nodes."""
        parent = inside[0].parent
        parent.insert(parent.index(inside[0]), node)
        node += title
        for part in inside:
            parent.remove(part)
            node += part
        node["classes"] = [kind, *node["classes"]]
        node["ids"], node["names"] = [label], [label]
        node.attributes |= {"label": label, "docname": self.env.docname, "type": kind}
        node.attributes |= {"title": title.astext(), "hidden": False}
        self.document.note_explicit_target(node, node)
        registry = self.env.__dict__.setdefault("sphinx_exercise_registry", {})
        registry[label] = {"type": kind, "docname": self.env.docname, "node": node.deepcopy()}


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx_proof")
    app.setup_extension("sphinx_exercise")
    app.add_transform(Statements)
    app.add_transform(Exercises)
    app.add_post_transform(Mentions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
