"""The book: its table of contents agrees with notebooks/, and it builds without a warning."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def listed_files(toc: Mapping[str, Any]) -> list[str]:
    """The files of a table of contents in their order, without the root."""
    files = []
    for entry in toc.get("chapters", ()):
        files += [entry["file"], *listed_files({"chapters": entry.get("sections", ())})]
    for part in toc.get("parts", ()):
        files += listed_files(part)
    return files


def disagreements(toc: Mapping[str, Any], chapters: Iterable[str]) -> list[str]:
    """Where ``toc`` differs from ``chapters``, which are in reading order."""
    listed, present = listed_files(toc), list(chapters)
    problems = [f"{name} is listed and does not exist" for name in listed if name not in present]
    problems += [f"{name} is not listed" for name in present if name not in listed]
    if not problems and listed != present:
        problems.append("the order differs")
    return problems


def test_the_toc_lists_chapters_sheets_and_the_teachers_pages_in_their_order() -> None:
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    assert CHAPTERS
    sheets = sorted((ROOT / "notebooks" / "exercises").glob("*.ipynb"))
    pages = [f"notebooks/{path.stem}" for path in CHAPTERS]
    pages += ["book/exercises", *(f"notebooks/exercises/{path.stem}" for path in sheets)]
    pages += ["book/teaching/guide", "book/teaching/class_00"]
    assert disagreements(toc, pages) == []


def test_a_toc_that_differs_is_found() -> None:
    toc = {"root": "intro", "chapters": [{"file": "a", "sections": [{"file": "b"}]}]}
    assert disagreements(toc, ["a", "b"]) == []
    assert disagreements(toc, ["b", "a"]) == ["the order differs"]
    assert disagreements(toc, ["a"]) == ["b is listed and does not exist"]
    assert disagreements(toc, ["a", "b", "c"]) == ["c is not listed"]
    parts = {"root": "intro", "parts": [{"caption": "I", "chapters": [{"file": "a"}]}]}
    assert disagreements(parts, ["a"]) == []


def build(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """`make book` on the repository or a copy of its layout, with the pages under ``output``."""
    pytest.importorskip("jupyter_book", reason="needs the extra book: pip install -e .[book]")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (flags,) = re.findall(r"^BOOK_FLAGS := (.*)$", makefile, flags=re.MULTILINE)
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", ".", *flags.split()]
    command += ["--path-output", str(output)]
    return subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("book")
    result = build(ROOT, output)
    assert result.returncode == 0, result.stdout + result.stderr
    return output / "_build" / "html"


def article(page: Path) -> str:
    """The HTML of a page's own content, without what the theme puts around it."""
    match = re.search(r"<article\b.*</article>", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert match is not None, page
    return match[0]


def readable(markup: str) -> str:
    """The text of HTML without its tags, entities resolved, white space as single blanks."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", markup)).split())


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapters_page_has_one_title_and_its_compared_results(pages: Path, chapter: Path) -> None:
    content = article(pages / "notebooks" / f"{chapter.stem}.html")
    assert content.count("<h1") == 1
    text = readable(content)
    for cell in nbformat.read(chapter, as_version=4).cells:
        if "nbval-check-output" in cell.metadata.get("tags", ()):
            for output in cell.outputs:
                assert " ".join(output.get("text", "").split()) in text


def test_the_front_page_links_every_chapter(pages: Path) -> None:
    intro = article(pages / "book" / "intro.html")
    linked = set(re.findall(r'href="\.\./notebooks/(\w+)\.html"', intro))
    assert linked == {path.stem for path in CHAPTERS}


def test_no_page_leaves_mathematics_or_markup_unrendered(pages: Path) -> None:
    for page in pages.rglob("*.html"):
        source = page.read_text(encoding="utf-8")
        assert "$$" not in re.sub(r"<(script|pre)\b.*?</\1>", "", source, flags=re.DOTALL), page
        assert "{doc}" not in source, page


@pytest.mark.parametrize("broken", [False, True])
def test_a_warning_fails_the_build(tmp_path: Path, broken: bool) -> None:
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("_build"))
    toc = {"format": "jb-book", "root": "book/intro"}
    (tmp_path / "book" / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    page = "# A book\n\nWith one page." + "\n\n[nowhere](missing.md)" * broken
    (tmp_path / "book" / "intro.md").write_text(page, encoding="utf-8")
    for stray in (".venv", ".pytest_cache", "build", "notebooks/.ipynb_checkpoints"):
        (tmp_path / stray).mkdir(parents=True)
        (tmp_path / stray / "README.md").write_text("# No page of the book", encoding="utf-8")
    result = build(tmp_path, tmp_path / "output")
    output = result.stdout + result.stderr
    assert (result.returncode != 0) == broken, output
    assert ("missing.md" in output) == broken
