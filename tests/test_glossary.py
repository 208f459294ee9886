"""The book's glossary: terms that chapters use, and links from the first use on each page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
import yaml
from book_build import ROOT, build
from glossary_links import EVERYDAY, Entry, pattern_of
from test_book import article

PAGE = ROOT / "book" / "glossary.md"


class Term(NamedTuple):
    names: list[str]
    text: str
    chapter: str


def terms() -> list[Term]:
    (listing,) = re.findall(
        r"````\{glossary\}\n(.*?)````", PAGE.read_text("utf-8"), flags=re.DOTALL
    )
    found = []
    for entry in listing.strip().split("\n\n"):
        *names, text = entry.split("\n")
        chapter = re.fullmatch(
            r"  (.*[.)]) \{doc\}`Chapter (\d\d) <\.\./notebooks/(\2_\w+)>`\.", text
        )
        assert chapter is not None, entry
        found.append(Term(names, chapter[1], chapter[3]))
    return found


def test_names_are_unique_and_in_the_order_of_the_alphabet() -> None:
    names = [name for term in terms() for name in term.names]
    assert len(set(names)) == len(names)
    assert set(names) >= EVERYDAY
    first = [term.names[0].lower() for term in terms()]
    assert first == sorted(first)
    assert len(first) >= 30


@pytest.mark.parametrize("term", terms(), ids=lambda term: term.names[0])
def test_the_chapter_that_an_entry_names_uses_the_term(term: Term) -> None:
    cells = nbformat.read(ROOT / "notebooks" / f"{term.chapter}.ipynb", as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    # In any order: "soft, implicit and hard values" uses three terms.
    assert all(word in text.lower() for word in term.names[0].lower().split())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Rollouts, or a rollout.", ["Rollout", "rollout"]),
        ("a first-error F1 of the first error", ["first-error F1", "first error"]),
        ("rolloutless, my-rollout, FIRST ERROR", []),
    ],
)
def test_a_name_is_a_whole_word(text: str, found: list[str]) -> None:
    entry = Entry("page", "term", (), "")
    pattern = pattern_of(dict.fromkeys(("first error", "first-error F1", "rollout"), entry))
    assert [match[1] for match in pattern.finditer(text)] == found


PAGES = {
    "intro": """# A rollout

A `rollout`, $rollout$ and [a rollout](glossary.md) stay; **rollouts** lead there, once: rollout.
Everyday words stay: a step. PRMs and process reward models are one entry.
""",
    "glossary": """# Glossary

```{glossary}
PRM
process reward model
  Judges each step of a rollout by $\\log\\pi_\\text{ref}\\,$. Chapter 00.

rollout
  A sampled solution.

step
  A part of it.
```
""",
}


def test_the_first_use_on_a_page_leads_to_the_entry(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("_build"))
    for name, text in PAGES.items():
        (tmp_path / "book" / f"{name}.md").write_text(text, encoding="utf-8")
    toc = {"format": "jb-book", "root": "book/intro", "chapters": [{"file": "book/glossary"}]}
    (tmp_path / "book" / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    result = build(tmp_path, tmp_path / "output")
    assert result.returncode == 0, result.stdout + result.stderr
    pages = tmp_path / "output" / "_build" / "html" / "book"
    link = r'<a class="glossary-term[^"]*" href="([^"]*)" title="([^"]*)">(.*?)</a>'
    assert re.findall(link, article(pages / "intro.html")) == [
        ("glossary.html#term-rollout", "A sampled solution.", "rollouts"),
        ("glossary.html#term-PRM", "Judges each step of a rollout by log π_ref.", "PRMs"),
    ]
    assert "<strong><a class=" in article(pages / "intro.html")
    glossary = article(pages / "glossary.html")
    assert "glossary-term" not in glossary
    assert all(f'id="term-{name}"' in glossary for name in ("rollout", "PRM", "step"))
