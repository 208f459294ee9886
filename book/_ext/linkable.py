"""What the extensions that link words share: where text is prose, and how a match is replaced."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from docutils import nodes


def is_inside(
    node: nodes.Node, kinds: tuple[type[nodes.Node], ...], classes: Collection[str] = ()
) -> bool:
    """Whether a node that contains this one is of these kinds, or has one of these classes."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds) or not set(classes).isdisjoint(node.get("classes", ())):
            return True
    return False


def replace_matches(
    text: nodes.Text,
    pattern: re.Pattern[str],
    made_of: Callable[[re.Match[str]], nodes.Node | None],
) -> None:
    """Put a node in the place of each match in a text; where it is None, the match stays."""
    parts: list[nodes.Node] = []
    end = 0
    for match in pattern.finditer(text):
        node = made_of(match)
        if node is not None:
            parts += [nodes.Text(text[end : match.start()]), node]
            end = match.end()
    if parts:
        text.parent.replace(text, [*parts, nodes.Text(text[end:])])
