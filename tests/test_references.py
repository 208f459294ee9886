"""The book's references: an entry for each paper that is named, and citations made of numbers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
import yaml
from book_build import ROOT, build
from citations import PAPER, unclosed
from pybtex.database import parse_file
from test_book import article, readable


def chapters_and_sheets() -> str:
    paths = sorted((ROOT / "notebooks").rglob("[0-9][0-9]_*.ipynb"))
    cells = [cell for path in paths for cell in nbformat.read(path, as_version=4).cells]
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def other_sources() -> str:
    """The book's pages and the package; the README names papers by the addresses of links."""
    paths = [*(ROOT / "book").rglob("*.md"), *(ROOT / "implicitprm").rglob("*.py")]
    sources = [path for path in paths if "_build" not in path.parts]
    return "\n".join(path.read_text(encoding="utf-8") for path in sources)


def entries() -> list[str]:
    """The arXiv numbers of the bibliography."""
    bibliography = parse_file(ROOT / "book" / "references.bib")
    return [entry.fields["eprint"] for entry in bibliography.entries.values()]


def test_each_paper_has_one_entry_and_each_entry_is_named_somewhere() -> None:
    assert PAPER.findall(chapters_and_sheets())
    named = set(PAPER.findall(chapters_and_sheets() + other_sources()))
    assert sorted(entries()) == sorted(named)


def test_an_entry_says_who_wrote_what_when() -> None:
    for entry in parse_file(ROOT / "book" / "references.bib").entries.values():
        # The number of an arXiv paper begins with year and month.
        assert entry.fields["year"] == f"20{entry.fields['eprint'][:2]}", entry.key
        surname = entry.persons["author"][0].last_names[0]
        assert entry.key.startswith(f"{surname.lower()}{entry.fields['year']}"), entry.key
        assert re.fullmatch(r"\{[^{}]+\}", entry.fields["title"]), entry.key


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("(arXiv 2412.01981, Eq. 5)", ["2412.01981"]),
        ("arXiv\n    2402.03300 and arXiv:2412.01981v1.", ["2402.03300", "2412.01981"]),
        ("https://arxiv.org/abs/2412.01981, 2412.01981, arXiv 2412.019812", []),
    ],
)
def test_a_paper_is_named_by_arxiv_and_its_number(text: str, numbers: list[str]) -> None:
    assert PAPER.findall(text) == numbers


def test_parentheses_that_are_open() -> None:
    assert [unclosed(text) for text in ("a (b", "a (b) c", "(a (b) c", "a) b")] == [1, 0, 1, -1]


PAGE = """# A book

Plain: arXiv 2412.01981 says so (PURE, arXiv 2504.15275) and (in brackets $f(x$) arXiv 1707.06347.

Linked: [arXiv 2412.01981](https://arxiv.org/abs/2412.01981), **bold arXiv 2407.99999**;
[another text](https://arxiv.org/abs/2412.01981) and `arXiv 2412.01981` stay.
"""


def small_book(folder: Path, page: str) -> tuple[int, str]:
    """Build a page and the references; the exit status and all that was written."""
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("_build"))
    toc = {"format": "jb-book", "root": "book/intro", "chapters": [{"file": "book/references"}]}
    (folder / "book" / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    (folder / "book" / "intro.md").write_text(page, encoding="utf-8")
    result = build(folder, folder / "output")
    return result.returncode, result.stdout + result.stderr


def test_numbers_become_citations_and_the_references_a_list(tmp_path: Path) -> None:
    status, output = small_book(tmp_path, PAGE.replace(", **bold arXiv 2407.99999**", ""))
    assert status == 0, output
    pages = tmp_path / "output" / "_build" / "html" / "book"
    text = readable(article(pages / "intro.html"))
    assert "Plain: Yuan et al. (2024) says so (PURE, Cheng et al., 2025) and" in text
    assert "Schulman et al. (2017)." in text
    assert "Linked: Yuan et al. (2024); another text and arXiv 2412.01981 stay." in text
    references = article(pages / "references.html")
    assert 'role="list"' not in references
    assert references.count("<li id=") == len(entries())
    (cited,) = re.findall(r'<li id="cheng2025stop">.*?</li>', references, flags=re.DOTALL)
    assert readable(cited).endswith("arXiv:2504.15275. Cited in A book.")
    (uncited,) = re.findall(r'<li id="kaplan2020scaling">.*?</li>', references, flags=re.DOTALL)
    assert readable(uncited).endswith("arXiv:2001.08361.")
    assert " et al. " in readable(uncited)
    assert "and others" not in references


def test_a_number_without_an_entry_fails_the_build(tmp_path: Path) -> None:
    status, output = small_book(tmp_path, PAGE)
    assert status != 0
    assert "no entry of the bibliography has eprint 2407.99999" in output
    assert output.count("WARNING") == 1, output
