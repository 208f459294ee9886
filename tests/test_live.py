"""The form for a solution of your own, moved by its callbacks: what it says to any input."""

from __future__ import annotations

import re
from html import unescape

import nbformat
import pytest
from book_build import ROOT
from nbformat.v4 import new_code_cell, new_notebook, new_output
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicitprm import ImplicitPRM
from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path
from implicitprm.live import form, judge, score_your_own

PROBLEM, RIGHT, WRONG = "7+5-3", "7+5=12 12-3=9 #9", "7+5=13 13-3=10 #10"


@pytest.fixture(scope="module")
def prms() -> dict[str, ImplicitPRM]:
    """Two checkpoints, each against the reasoner."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path())
    models = {
        name: AutoModelForCausalLM.from_pretrained(checkpoint_path(name)).eval()
        for name in ("reasoner", "strong", "early")
    }
    return {
        name: ImplicitPRM(models[name], models["reasoner"], tokenizer, 0.5, ARITHMETIC_FORMAT)
        for name in ("strong", "early")
    }


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[+-]\d+\.\d+", text)]


def verdicts(text: str) -> list[str]:
    return re.findall(r"(right|wrong)$", text, flags=re.MULTILINE)


def test_the_table_holds_rewards_q_and_truth(prms: dict[str, ImplicitPRM]) -> None:
    scored = prms["strong"].score(f"{PROBLEM}\n", WRONG.split())
    table = judge(prms["strong"], f" {PROBLEM} ", WRONG)
    shown = numbers(table)
    assert shown[0:6:2] == pytest.approx(scored.step_rewards, abs=5.1e-4)
    assert shown[1:6:2] == pytest.approx(scored.q_values, abs=5.1e-4)
    assert shown[6:] == [pytest.approx(scored.outcome, abs=5.1e-4)]
    # What follows from the wrong sum is right.
    assert verdicts(table) == ["wrong", "right", "right"]
    assert verdicts(judge(prms["strong"], PROBLEM, RIGHT)) == ["right"] * 3


def test_a_solution_that_is_still_being_written(prms: dict[str, ImplicitPRM]) -> None:
    table = judge(prms["strong"], PROBLEM, "7+5=12 12-3=9")
    assert verdicts(table) == ["right", "right"]
    unfinished = prms["strong"].score(f"{PROBLEM}\n", ["7+5=12", "12-3=9"], finished=False)
    assert numbers(table)[-1] == pytest.approx(unfinished.outcome, abs=5.1e-4)
    # A step too many is an error all the same.
    assert verdicts(judge(prms["strong"], PROBLEM, "7+5=12 12-3=9 9+1=10"))[-1] == "wrong"


BAD = [
    (PROBLEM, "", "there is no step yet: write for example 7+5=12"),
    (PROBLEM, "7+5=12 12-3", "step 1, '12-3', cannot be read: write a step as 7+5=12"),
    (PROBLEM, "7+5=12 12-3=59", "step 1, '12-3=59', cannot be read"),
    (PROBLEM, "7+5=012", "step 0, '7+5=012', cannot be read"),
    (PROBLEM, "seven", "numbers below 50"),
    ("7+", RIGHT, "'7+\\n' is not an arithmetic problem; expected for example"),
    ("70+5", RIGHT, "lies outside this world: numbers start below 50"),
    ("7" + "+1" * 80, "7+1=8 #8", "context"),
]


@pytest.mark.parametrize(("problem", "solution", "message"), BAD)
def test_bad_input_is_an_error_in_words(
    prms: dict[str, ImplicitPRM], problem: str, solution: str, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        judge(prms["strong"], problem, solution)


def test_the_form_answers_when_it_is_changed(prms: dict[str, ImplicitPRM]) -> None:
    problem, solution, model, table = form(prms, PROBLEM, WRONG).children

    def shown() -> str:
        return unescape(re.sub("<[^>]*>", "", table.value))

    assert shown() == judge(prms["strong"], PROBLEM, WRONG)
    model.value = "early"
    assert shown() == judge(prms["early"], PROBLEM, WRONG) != judge(prms["strong"], PROBLEM, WRONG)
    solution.value = RIGHT
    assert shown() == judge(prms["early"], PROBLEM, RIGHT)
    for bad_problem, bad_solution, message in BAD:
        problem.value, solution.value = bad_problem, bad_solution
        assert shown().startswith("Not scored: ")
        assert message in shown()
    problem.value, solution.value = "1+2", "1+2=3 #3 <b>"
    assert "&lt;b&gt;" in table.value
    solution.value = "1+2=3 #3"
    assert shown() == judge(prms["early"], "1+2", "1+2=3 #3")


def test_without_a_front_end_there_is_no_widget(
    prms: dict[str, ImplicitPRM],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert score_your_own(prms, PROBLEM, RIGHT) is None
    assert capsys.readouterr().out.startswith("No live front-end: run this cell in JupyterLab")
    monkeypatch.setattr("implicitprm.live.has_live_front_end", lambda: True)
    shown = score_your_own(prms, PROBLEM, RIGHT)
    assert shown is not None
    assert [field.value for field in shown.children[:3]] == [PROBLEM, RIGHT, "strong"]


def stored_widgets(notebook: nbformat.NotebookNode) -> list[str]:
    """Where a notebook holds a widget or the state of one."""
    found = ["metadata"] if "widgets" in notebook.metadata else []
    return found + [
        cell.id
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if any("jupyter.widget" in kind for kind in output.get("data", {}))
    ]


def test_no_chapter_stores_a_widget() -> None:
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        assert stored_widgets(nbformat.read(path, as_version=4)) == [], path


def test_a_stored_widget_is_found() -> None:
    view = new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}})
    notebook = new_notebook(cells=[new_code_cell("form", id="a", outputs=[view])])
    notebook.metadata["widgets"] = {}
    assert stored_widgets(notebook) == ["metadata", "a"]
