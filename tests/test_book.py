"""The book: its contents agree with notebooks/; it builds without a warning, needs no network."""

from __future__ import annotations

import ast
import html
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from book_build import ROOT, Book, build
from citations import PAPER
from test_api import COMMANDS, public_modules
from test_repository import public_names

CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
#: The package's pages, in the order of its core and then of what stands beside it.
API_PAGES = (
    "index",
    "rewards",
    "q_values",
    "training",
    "data",
    "selection",
    "figures",
    "inference",
    "comparisons",
    "reinforcement",
    "arithmetic",
    "stackmachine",
    "wordproblems",
    "command_line",
)


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
    pages += [f"book/api/{name}" for name in API_PAGES]
    pages += ["book/notation", "book/glossary", "book/references", "book/provenance"]
    assert disagreements(toc, pages) == []


def test_a_toc_that_differs_is_found() -> None:
    toc = {"root": "intro", "chapters": [{"file": "a", "sections": [{"file": "b"}]}]}
    assert disagreements(toc, ["a", "b"]) == []
    assert disagreements(toc, ["b", "a"]) == ["the order differs"]
    assert disagreements(toc, ["a"]) == ["b is listed and does not exist"]
    assert disagreements(toc, ["a", "b", "c"]) == ["c is not listed"]
    parts = {"root": "intro", "parts": [{"caption": "I", "chapters": [{"file": "a"}]}]}
    assert disagreements(parts, ["a"]) == []


def test_the_build_from_stored_outputs_takes_under_a_minute(book: Book) -> None:
    """Processor time, since others may use the cores too."""
    assert book.seconds < 60


def article(page: Path) -> str:
    """The HTML of a page's own content, without what the theme puts around it."""
    match = re.search(r"<article\b.*</article>", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert match is not None, page
    return match[0]


def readable(markup: str) -> str:
    """The text of HTML without its tags, entities resolved, white space as single blanks."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", markup)).split())


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapters_page_has_one_title_and_its_compared_results(site: Path, chapter: Path) -> None:
    content = article(site / "notebooks" / f"{chapter.stem}.html")
    assert content.count("<h1") == 1
    text = readable(content)
    for cell in nbformat.read(chapter, as_version=4).cells:
        if "nbval-check-output" in cell.metadata.get("tags", ()):
            for output in cell.outputs:
                assert " ".join(output.get("text", "").split()) in text


def test_the_front_page_links_every_chapter(site: Path) -> None:
    intro = article(site / "book" / "intro.html")
    linked = set(re.findall(r'href="\.\./notebooks/(\w+)\.html"', intro))
    assert linked == {path.stem for path in CHAPTERS}


def test_the_provenance_page_lists_every_result_and_every_run_time(site: Path) -> None:
    text = readable(article(site / "book" / "provenance.html"))
    results = sorted((ROOT / "implicitprm" / "experiments" / "results").glob("*.json"))
    for path in results:
        result = json.loads(path.read_text(encoding="utf-8"))
        assert result["config_hash"] in text
        assert result["command"].removeprefix("python -m ") in text
    times = json.loads((ROOT / "notebooks" / "run_times.json").read_text(encoding="utf-8"))
    assert times
    assert set(times) <= {path.stem for path in CHAPTERS}
    for name, seconds in times.items():
        assert f"{name} {seconds:.0f}" in text
    assert f"sum {sum(times.values()):.0f}" in text


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_each_paper_that_a_chapter_names_is_a_link_to_its_entry(site: Path, chapter: Path) -> None:
    cells = nbformat.read(chapter, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    content = article(site / "notebooks" / f"{chapter.stem}.html")
    keys = re.findall(
        r'class="reference internal" href="\.\./book/references\.html#(\w+)"', content
    )
    # Two matches where the text of a link is a number and its address has it too: one citation.
    assert len(keys) == len(PAPER.findall(text))
    entries = article(site / "book" / "references.html")
    assert all(f'<li id="{key}">' in entries for key in keys)


def test_no_page_leaves_mathematics_or_markup_unrendered(site: Path) -> None:
    for page in site.rglob("*.html"):
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


# ---- The package's pages, and links to them --------------------------------------------------


@pytest.mark.parametrize("module", public_modules(ROOT / "implicitprm"))
def test_every_public_name_has_its_place_and_private_ones_have_none(
    site: Path, module: str
) -> None:
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    definitions = public_names(ast.parse(path.read_text(encoding="utf-8")))
    # Of constants those that a comment explains.
    kinds = (ast.FunctionDef, ast.ClassDef)
    expected = {f"{module}.{n}" for n, node in definitions.items() if isinstance(node, kinds)}
    found = (site / "book" / "api").glob("*.html")
    if module == COMMANDS:
        expected = {f"implicitprm-{name}" for name in ("train", "score", "evaluate", "rollouts")}
        found = (site / "book" / "api").glob("command_line.html")
    ids = [name for page in found for name in re.findall(r'\bid="([\w.-]+)"', article(page))]
    assert {name: ids.count(name) for name in expected} == dict.fromkeys(expected, 1)
    assert not [name for name in ids if re.search(r"\._[a-z]", name)]


def test_a_chapter_links_the_first_use_of_a_function(site: Path) -> None:
    linked = {}
    for chapter in CHAPTERS:
        content = article(site / "notebooks" / f"{chapter.stem}.html")
        linked[chapter.stem] = re.findall(r'href="\.\./book/api/\w+\.html#(\S+?)"', content)
        assert len(linked[chapter.stem]) == len(set(linked[chapter.stem]))
        for heading in re.findall(r"<h\d.*?</h\d>", content, flags=re.DOTALL):
            assert "book/api/" not in heading
    assert "implicitprm.rewards.ImplicitPRM.score" in linked["01_reward_as_log_ratio"]
    assert "implicitprm.qvalues.implicit_q" in linked["02_q_values"]
    assert "implicitprm.steps.encode" in linked["04_outcome_data"]
    # There it is an argument of the exercise's function.
    assert "implicitprm.rewards.step_rewards" not in linked["11_where_is_the_error"]


def test_a_modules_text_links_the_chapter_that_uses_it_first(site: Path) -> None:
    content = article(site / "book" / "api" / "q_values.html")
    link = r'First used in chapter <a [^>]*href="\.\./\.\./notebooks/02_q_values\.html"'
    assert re.search(link, content)


def test_propositions_are_stated_once_and_linked_from_other_pages(site: Path) -> None:
    for label, chapter, mentioning in (
        (
            "proposition-3-1",
            "02_q_values",
            {"00_start_here", "03_soft_hard_implicit", "11_where_is_the_error"},
        ),
        ("proposition-3-2", "03_soft_hard_implicit", {"08_baselines"}),
    ):
        texts = {path: article(path) for path in (site / "notebooks").glob("*.html")}
        (home,) = (path for path, text in texts.items() if f'id="{label}"' in text)
        assert home.stem == chapter
        assert f'id="proof-of-{label}"' in texts[home]
        linking = {path.stem for path, text in texts.items() if f'.html#{label}"' in text}
        assert linking == mentioning
        assert f'.html#{label}"' in article(site / "book" / "api" / "q_values.html")


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_an_exercise_has_its_task_and_a_solution_that_opens(site: Path, chapter: Path) -> None:
    content = article(site / "notebooks" / f"{chapter.stem}.html")
    has_exercise = bool(re.search(r"<h2>Exercise: ", content))
    label = f"exercise-{chapter.stem[:2]}"
    assert content.count(f'<div class="exercise admonition" id="{label}"') == has_exercise
    solution = f'<div class="solution dropdown admonition" id="solution-{label}"'
    assert content.count(solution) == has_exercise


# ---- Offline --------------------------------------------------------------------------------

#: What a browser fetches by itself, in contrast to the links that a reader follows.
FETCHED = (
    re.compile(r"""<(?!a\b)[^>]*?\s(?:src|data|poster)\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""),
    re.compile(r"""<link\b[^>]*?\shref\s*=\s*["']?((?:https?:)?//[^"'\s>]+)"""),
    re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)"""),
)
SCRIPT = re.compile(r"<script\b[^>]*>(.*?)</script>", flags=re.DOTALL)
ADDRESS = re.compile(r"""https?://[^"'\s`]+""")


def fetched_addresses(source: str) -> list[str]:
    """Addresses on other hosts that a page or style sheet loads, or that its scripts name."""
    found = [match[1] for rule in FETCHED for match in rule.finditer(source)]
    inline = [address for body in SCRIPT.findall(source) for address in ADDRESS.findall(body)]
    # The name of a namespace is an address that nobody fetches.
    return [a for a in found + inline if not a.startswith("http://www.w3.org/")]


def test_no_page_and_no_style_sheet_names_another_host(site: Path) -> None:
    sources = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    found = {
        str(path.relative_to(site)): fetched_addresses(path.read_text(encoding="utf-8"))
        for path in sources
    }
    assert {name: addresses for name, addresses in found.items() if addresses} == {}


@pytest.mark.parametrize(
    "source",
    [
        '<script src="https://cdn.example.org/mathjax.js"></script>',
        "<script async src='//cdn.example.org/require.js'></script>",
        '<script>const THEBE_JS_URL = "https://cdn.example.org/thebe.js"</script>',
        '<link rel="stylesheet" href="https://fonts.example.org/font.css" />',
        '<img alt="" src="https://example.org/badge.svg">',
        '@font-face { src: url("https://fonts.example.org/font.woff2") }',
        "@import 'https://fonts.example.org/font.css';",
    ],
)
def test_another_host_is_found(source: str) -> None:
    assert len(fetched_addresses(source)) >= 1


def test_a_link_and_a_local_file_are_no_other_host() -> None:
    source = '<a href="https://arxiv.org/abs/2412.01981">x</a><script src="../a.js"></script>'
    assert fetched_addresses(source + '<svg xmlns="http://www.w3.org/2000/svg"></svg>') == []


def test_mathematics_is_rendered_by_a_file_of_the_book(site: Path) -> None:
    page = site / "book" / "intro.html"
    source = page.read_text(encoding="utf-8")
    (script,) = re.findall(r'src="([^"]*tex-chtml\.js)[^"]*"', source)
    assert (page.parent / script).is_file()
    fonts = list((site / "_static" / "mathjax").rglob("*.woff"))
    assert len(fonts) > 10


def test_thebe_is_not_loaded(site: Path) -> None:
    for page in site.rglob("*.html"):
        for element in re.findall(r"<script\b.*?</script>", page.read_text(), flags=re.DOTALL):
            assert "thebe" not in element.lower(), page


def test_the_book_fits_on_a_stick(site: Path) -> None:
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 25e6
