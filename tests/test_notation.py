"""The book's table of symbols: each name is one of the package, each chapter has the symbol."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import nbformat
import pytest
from book_build import ROOT
from breakable_names import DOTTED_NAME, pieces

PAGE = ROOT / "book" / "notation.md"


class Row(NamedTuple):
    symbol: str
    names: list[str]
    chapter: str


def rows() -> list[Row]:
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and len(cells) == 3 and cells[0] != "symbol":
            chapter = re.fullmatch(r"\{doc\}`(\d\d) <\.\./notebooks/(\1_\w+)>`", cells[2])
            assert chapter is not None, line
            found.append(
                Row(cells[0], re.findall(r"`([\w.]+)`", cells[1].split("<br>")[-1]), chapter[2])
            )
    return found


def attribute(owner: Any, name: str) -> Any:
    """An attribute of a class or module, or an argument of a function or constructor."""
    if hasattr(owner, name):
        return getattr(owner, name)
    if name in getattr(owner, "__annotations__", {}):
        return owner.__annotations__[name]
    if callable(owner) and name in inspect.signature(owner).parameters:
        return inspect.signature(owner).parameters[name]
    raise AttributeError(f"{owner!r} has no {name!r}")


def find(dotted: str) -> Any:
    """What a name inside ``implicitprm`` stands for."""
    module, names = "implicitprm", dotted.split(".")
    owner = import_module(module)
    while names and hasattr(owner, "__path__") and find_spec(f"{module}.{names[0]}"):
        module += f".{names.pop(0)}"
        owner = import_module(module)
    assert names, f"{dotted} is a module"
    for name in names:
        owner = attribute(owner, name)
    return owner


def test_every_line_of_a_table_is_read() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    tables = sum(line.startswith("|---") for line in lines)
    assert len(rows()) == sum(line.startswith("|") for line in lines) - 2 * tables
    assert len(rows()) > 30


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.symbol} {row.chapter[:2]}")
def test_the_package_has_each_name_and_the_chapter_each_symbol(row: Row) -> None:
    assert row.names
    for name in row.names:
        find(name)
    chapter = ROOT / "notebooks" / f"{row.chapter}.ipynb"
    cells = nbformat.read(chapter, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    symbol = row.symbol.strip("$")
    if row.symbol.startswith("$"):
        text = "\n".join(re.findall(r"\$\$.*?\$\$|\$[^$]+\$", text, flags=re.DOTALL))
    # A letter of a longer word, such as the T of \text, is not the symbol.
    assert re.search(rf"(?<![A-Za-z\\]){re.escape(symbol)}(?![A-Za-z])", text), row


def test_a_dotted_name_may_break_behind_its_dots() -> None:
    assert [node.astext() for node in pieces("a.b_1.c")] == ["a.", "<wbr>", "b_1.", "<wbr>", "c"]
    long = ["comparisons.math_shepherd.complete_prefixes.n", "a.b.c"]
    assert all(map(DOTTED_NAME.fullmatch, long))
    assert not any(map(DOTTED_NAME.fullmatch, ["1.2.3", "references.bib", "a.b.c()", "x.1.y"]))


@pytest.mark.parametrize(
    "name",
    ["rewards.ImplicitPRM.gamma", "losses.ce_loss.margin", "rewards.nothing", "nowhere.policy"],
)
def test_a_name_that_does_not_exist_is_found(name: str) -> None:
    with pytest.raises(AttributeError):
        find(name)
