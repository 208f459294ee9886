"""The book's own extensions: the package's pages, links to them, propositions and exercises."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from book_build import ROOT
from docutils import nodes
from docutils.utils import new_document
from sphinx import addnodes

#: Packages without a page; book/api/index.md says why.
WITHOUT_PAGE = ("classroom", "experiments")
#: The command line has a page of its own making, from its options.
COMMANDS = "implicitprm.cli"


def extension(name: str) -> ModuleType:
    """One of the book's extensions, which Sphinx finds by a path and Python does not."""
    path = ROOT / "book" / "_ext" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- The package's pages --------------------------------------------------------------------


def public_modules(package: Path) -> list[str]:
    """The modules of a package by their dotted names; a package stands for its modules."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        if parts[1] in WITHOUT_PAGE or any(part.startswith("_") for part in parts[1:-1]):
            continue
        if parts[-1] != "__init__" and not parts[-1].startswith("_"):
            found.append(".".join(parts))
    return found


def documented_modules(pages: Iterable[str]) -> list[str]:
    text = "\n".join(pages)
    return re.findall(r"^\.\. automodule:: ([\w.]+)\n(?!   :no-members:)", text, re.MULTILINE)


def api_pages() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in (ROOT / "book" / "api").glob("*.md")]


def test_every_public_module_is_on_one_page() -> None:
    documented = documented_modules(api_pages())
    assert len(documented) > 40
    assert sorted([*documented, COMMANDS]) == public_modules(ROOT / "implicitprm")


def test_a_module_without_a_page_is_found(tmp_path: Path) -> None:
    package = tmp_path / "implicitprm"
    for name in ("__init__", "new", "_own", "world/__init__", "world/maps", "experiments/one"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").touch()
    assert public_modules(package) == ["implicitprm.new", "implicitprm.world.maps"]
    page = "```{eval-rst}\n.. automodule:: implicitprm.world\n   :no-members:\n```\n"
    page += "```{eval-rst}\n.. automodule:: implicitprm.new\n```\n"
    assert documented_modules([page]) == ["implicitprm.new"]


def test_the_index_says_what_is_left_out() -> None:
    index = (ROOT / "book" / "api" / "index.md").read_text(encoding="utf-8")
    for name in WITHOUT_PAGE:
        assert f"`implicitprm.{name}`" in index
    for path in (ROOT / "book" / "api").glob("*.md"):
        assert path.stem == "index" or f"{{doc}}`{path.stem}`" in index


def test_a_module_is_introduced_by_the_first_chapter_that_imports_it() -> None:
    api = extension("api")
    chapters = {
        "notebooks/00": "from implicitprm.worlds import map\nfrom implicitprm.steps_more import a",
        "notebooks/01": "if True:\n    from implicitprm.steps import encode",
        "notebooks/02": "import implicitprm.steps",
    }
    assert api.introducing_chapter("implicitprm.steps", chapters) == "notebooks/01"
    assert api.introducing_chapter("implicitprm.losses", chapters) is None
    # What a package hands on stands for the modules that nobody imports by name.
    assert api.introducing_chapter("implicitprm.worlds.maps", chapters) == "notebooks/00"


def test_numpys_types_are_named_as_they_are_written() -> None:
    import numpy as np
    import numpy.typing as npt
    from sphinx.util.typing import stringify_annotation

    api = extension("api")
    types = (npt.ArrayLike, npt.NDArray[np.float64], npt.ArrayLike | None)
    written = ", ".join(stringify_annotation(kind, "smart") for kind in types)
    short, _ = api.shorten_signature(None, "", "", None, None, f"({written})", None)
    assert short == (
        "(~numpy.typing.ArrayLike, ~numpy.typing.NDArray[~numpy.float64], "
        "~numpy.typing.ArrayLike | None)"
    )


def test_a_command_shows_the_type_of_a_parameter_and_no_address() -> None:
    written = "(names: ~types.Annotated[list[str] | None, <typer.ArgumentInfo at 0x7f>] = None)"
    short, _ = extension("api").shorten_signature(None, "", "", None, None, written, None)
    assert short == "(names: list[str] | None = None)"
    # What is left in <> makes Sphinx show the text, in which a tilde shortens nothing.
    written = "(ranges: ~collections.abc.Mapping[str, int] = <object>)"
    short, _ = extension("api").shorten_signature(None, "", "", None, None, written, None)
    assert short == "(ranges: Mapping[str, int] = <object>)"
    # A field with a factory has some default.
    written = "(ranges: dict[str, int] = <factory>)"
    short, _ = extension("api").shorten_signature(None, "", "", None, None, written, None)
    assert short == "(ranges: dict[str, int] = ...)"


def test_a_signature_names_the_packages_types() -> None:
    from sphinx.util.typing import stringify_annotation

    from implicitprm.comparisons.math_shepherd import Grader
    from implicitprm.steps import Prompt

    api = extension("api")
    types = (Prompt, Grader, Prompt | None, str)
    written = ", ".join(stringify_annotation(kind, "smart") for kind in types)
    short, _ = api.shorten_signature(None, "", "", None, None, f"({written})", None)
    prompt = "~implicitprm.steps.Prompt"
    assert short == (
        f"({prompt}, ~implicitprm.comparisons.math_shepherd.Grader, {prompt} | None, str)"
    )


def test_a_protocol_has_no_signature() -> None:
    from implicitprm.reinforce.loop import ProcessReward

    api = extension("api")
    short, _ = api.shorten_signature(None, "", "", ProcessReward, None, "(*args, **kwargs)", None)
    assert short == ""


def test_the_text_of_a_command_has_its_code_as_code() -> None:
    text = "Memory that `train` needs, as long as --max-length. A x-ray--like thing."
    paragraph = extension("api").help_text(text)
    assert [node.astext() for node in paragraph.findall(nodes.literal)] == ["train", "--max-length"]
    assert paragraph.astext() == text.replace("`", "")


def test_a_class_shows_its_own_fields_and_not_those_of_another_package() -> None:
    @dataclass
    class Foreign:
        epochs: int = 1

    Foreign.__module__ = "transformers"

    @dataclass
    class Config(Foreign):
        beta: float = 0.1

    Config.__module__ = "implicitprm.training"
    Heir = type("Heir", (Config,), {"__module__": "implicitprm.reinforce"})
    api = extension("api")
    assert api.own_parameters(Config) == "(beta: float = 0.1, **kwargs)"
    assert api.own_parameters(Heir) == "(**kwargs)"
    Foreign.__module__ = "implicitprm.training"
    assert api.own_parameters(Foreign) is None


# ---- Links from the text --------------------------------------------------------------------

OBJECTS = {
    "implicitprm.rewards.step_rewards": "function",
    "implicitprm.rewards.ImplicitPRM": "class",
    "implicitprm.rewards.ImplicitPRM.score": "method",
    "implicitprm.rewards": "module",
    "implicitprm.steps.encode": "function",
    "implicitprm.chess.sample_problem": "function",
    "implicitprm.words.sample_problem": "function",
    "implicitprm.words.LIMIT": "data",
}


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("step_rewards", "implicitprm.rewards.step_rewards"),
        ("rewards.step_rewards", "implicitprm.rewards.step_rewards"),
        ("step_rewards(r, ends)", "implicitprm.rewards.step_rewards"),
        ("ImplicitPRM", "implicitprm.rewards.ImplicitPRM"),
        ("ImplicitPRM.score", "implicitprm.rewards.ImplicitPRM.score"),
        ("implicitprm.rewards", "implicitprm.rewards"),
        ("encode()", "implicitprm.steps.encode"),
        # Two worlds have one of that name, and the page imports from one of them.
        ("sample_problem", "implicitprm.words.sample_problem"),
        ("encode", None),
        ("score", None),
        ("rewards", None),
        ("LIMIT", None),
        ("step_rewards.py", None),
        ("7+5", None),
    ],
)
def test_a_name_is_linked_where_it_means_one_object(text: str, full: str | None) -> None:
    links = extension("function_links")
    code = [
        "import torch\nfrom implicitprm.words import (\n    LIMIT as L,\n    sample_problem,\n)"
    ]
    imported = links.imported_names(code)
    assert imported == {"LIMIT": "implicitprm.words", "sample_problem": "implicitprm.words"}
    assert links.meant(text, links.short_names(OBJECTS), imported) == full


def test_without_an_import_an_ambiguous_name_is_not_linked_and_a_plain_word_is_with_one() -> None:
    links = extension("function_links")
    names = links.short_names(OBJECTS)
    assert links.meant("sample_problem", names, {}) is None
    imported = links.imported_names(["from implicitprm.steps import Solution, encode"])
    assert links.meant("encode", names, imported) == "implicitprm.steps.encode"


def test_in_a_sheet_the_names_that_its_code_defines_are_the_learners_own() -> None:
    links = extension("function_links")
    objects = {full: SimpleNamespace(objtype=kind) for full, kind in OBJECTS.items()}
    for entry in objects.values():
        entry.docname, entry.node_id = "book/api/rewards", "id"
    builder = SimpleNamespace(get_relative_uri=lambda start, end: f"{end}.html")
    env = SimpleNamespace(domaindata={"py": {"objects": objects}})
    for docname, linked in (
        ("notebooks/exercises/01_step_rewards", ["ImplicitPRM"]),
        ("notebooks/01_reward", ["step_rewards", "ImplicitPRM"]),
        ("book/api/rewards", []),
    ):
        made = new_document("")
        code = nodes.literal_block("", "def step_rewards(r):\n    return r")
        words = [nodes.literal("", name) for name in ("step_rewards", "ImplicitPRM")]
        made += [nodes.paragraph("", "", *words), code]
        links.link_names(SimpleNamespace(env=env, builder=builder), made, docname)
        assert [link.astext() for link in made.findall(nodes.reference)] == linked


def test_matches_in_a_text_become_nodes() -> None:
    text = nodes.paragraph("", "", nodes.Text("one 2 three 4"))
    made_of = {"2": nodes.strong("", "two")}
    linkable = extension("linkable")
    linkable.replace_matches(text[0], re.compile(r"\d"), lambda match: made_of.get(match[0]))
    assert [node.astext() for node in text] == ["one ", "two", " three 4"]
    linkable.replace_matches(text[2], re.compile(r"\d"), lambda match: None)
    assert text.astext() == "one two three 4"


def test_a_name_is_prose_outside_headings_links_and_outputs() -> None:
    links = extension("function_links")
    for around, prose in (
        (nodes.paragraph(), True),
        (nodes.title(), False),
        (nodes.reference(), False),
        (nodes.container(classes=["cell_output"]), False),
        (nodes.admonition(classes=["exercise"]), False),
        (nodes.table(classes=["result-files"]), False),
    ):
        name = nodes.literal("", "step_rewards")
        around += name
        new_document("").append(around)
        assert links.is_prose(name) == prose


# ---- Propositions and exercises -------------------------------------------------------------


def paragraph(*parts: nodes.Node | str) -> nodes.paragraph:
    # As MyST parses emphasis at a start: after a text without characters.
    return nodes.paragraph("", "", *(nodes.Text(p) if isinstance(p, str) else p for p in parts))


def bold(text: str) -> nodes.strong:
    return nodes.strong("", text)


def document(*content: nodes.Node, title: str = "The claim") -> nodes.document:
    made = new_document("")
    made.settings.env = SimpleNamespace(docname="notebooks/02_q_values")
    made += nodes.section("", nodes.title("", title), *content, ids=["section"])
    return made


def stated() -> nodes.document:
    return document(
        paragraph("As Proposition 3.1 says"),
        paragraph("", bold("Proposition 3.1"), " (arXiv 2412.01981). It is a mean:"),
        nodes.math_block("", "q = m"),
        paragraph("", bold("Proof"), ", backwards."),
        nodes.math_block("", "a = b"),
        paragraph("So it is. ∎"),
        paragraph("Training was not used."),
    )


def test_a_proposition_and_its_proof_are_put_into_boxes() -> None:
    statements = extension("statements")
    made = stated()
    statements.Statements(made).apply()
    statement, proof = made.findall(nodes.admonition)
    assert statement["ids"] == ["proposition-3-1"]
    assert [node.astext() for node in statement] == [
        "Proposition 3.1 (arXiv 2412.01981)",
        "It is a mean:",
        "q = m",
    ]
    assert proof["ids"] == ["proof-of-proposition-3-1"]
    assert proof[0].astext() == "Proof, backwards."
    assert proof[-1].astext() == "So it is. ∎"
    assert made[0][-1].astext() == "Training was not used."
    known = made.settings.env.proof_list["proposition-3-1"]
    assert known["docname"] == "notebooks/02_q_values"


def test_a_mention_becomes_a_reference_and_the_statement_itself_none() -> None:
    statements = extension("statements")
    made = stated()
    statements.Statements(made).apply()
    statements.Mentions(made).run()
    (reference,) = made.findall(addnodes.pending_xref)
    assert (reference["refdomain"], reference["reftarget"]) == ("prf", "proposition-3-1")
    assert reference.parent.astext() == "As Proposition 3.1 says"


def test_a_proof_without_an_end_is_a_warning() -> None:
    statements = extension("statements")
    made = document(
        paragraph("", bold("Proposition 3.2"), ": so."), paragraph("", bold("Proof."), " And so.")
    )
    messages: list[str] = []
    statements.logger.warning = lambda text, *parts, **_: messages.append(text % parts)
    statements.Statements(made).apply()
    assert messages == ["the proof of proposition-3-2 has no ∎"]


def test_an_exercise_and_its_solution_are_put_into_boxes() -> None:
    statements = extension("statements")
    cells = [nodes.container("", nodes.literal_block("", t), classes=["cell"]) for t in "ab"]
    wrong = paragraph("What the check says:")
    made = document(
        paragraph(nodes.emphasis("", "About ten minutes, easy."), " Write the loss."),
        paragraph("Return it."),
        cells[0],
        wrong,
        cells[1],
        title="Exercise: the loss",
    )
    statements.Exercises(made).apply()
    heading, task, solution, *rest = made[0]
    assert heading.astext() == "Exercise: the loss"
    assert (task["ids"], solution["ids"]) == (["exercise-02"], ["solution-exercise-02"])
    assert [node.astext() for node in task[0]] == ["Exercise", "about ten minutes, easy"]
    assert [node.astext() for node in task[1:]] == ["Write the loss.", "Return it."]
    assert solution[1:] == cells[:1]
    assert rest == [wrong, cells[1]]


def test_a_section_that_is_no_exercise_stays_as_it_is() -> None:
    statements = extension("statements")
    made = document(paragraph("Text."), title="Exercises of this book")
    before = made.pformat()
    statements.Exercises(made).apply()
    assert made.pformat() == before


# ---- Exercise sheets ------------------------------------------------------------------------


def test_a_fold_of_a_sheet_is_named_by_what_it_hides_and_shows_no_marks() -> None:
    sources = {
        "def f(x):\n    # BEGIN SOLUTION\n    return x\n    # END SOLUTION": "solution",
        "# Checked.\n# BEGIN HIDDEN TESTS\nassert f(1)\n# END HIDDEN TESTS": "tests",
        "assert f(0) == 0  # the BEGIN": "",
    }
    blocks = [nodes.literal_block(source, source) for source in sources]
    cells = [nodes.container("", nodes.container("", block)) for block in blocks]
    made = document(*cells, title="Sheet")
    extension("sheets").Folds(made).apply()
    texts = [block.astext() for block in blocks]
    assert texts == ["def f(x):\n    return x", "# Checked.\nassert f(1)", list(sources)[2]]
    assert [block.rawsource for block in blocks] == texts
    shown = [(cell.get("prompt_show"), cell.get("prompt_hide")) for cell in cells]
    assert shown == [
        ("Show the solution", "Hide the solution"),
        ("Show the tests", "Hide the tests"),
        (None, None),
    ]
