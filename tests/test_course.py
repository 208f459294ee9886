"""The editions of the sheets, and grading through the command line."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

pytest.importorskip("nbgrader", reason="needs the extra classroom: pip install -e .[classroom]")

ROOT = Path(__file__).resolve().parents[1]
SHEETS = sorted((ROOT / "notebooks" / "exercises").glob("*.ipynb"))
SCRIPT = ROOT / "notebooks" / "exercises" / "course.py"
SHEET = "00_choose_an_answer"


def run(task: str, course: Path) -> subprocess.CompletedProcess[str]:
    """What `make classroom` and `make grades` run."""
    command = [sys.executable, str(SCRIPT), task, str(course)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def grade_id(cell: NotebookNode) -> str | None:
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("course")
    result = run("editions", folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


# ---- The editions ---------------------------------------------------------------------------


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda path: path.stem)
def test_the_release_holds_neither_solutions_nor_hidden_tests_nor_rubrics(
    course: Path, sheet: Path
) -> None:
    released = read(course / "release" / sheet.stem / sheet.name)
    text = "\n".join(cell.source for cell in released.cells)
    for secret in ("SOLUTION", "HIDDEN", "rubric", "An answer", "import check"):
        assert secret not in text
    assert not any(cell.get("outputs") for cell in released.cells)
    assert "raise NotImplementedError" in text
    assert "YOUR ANSWER HERE" in text
    assert [grade_id(c) for c in released.cells] == [grade_id(c) for c in read(sheet).cells]


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda path: path.stem)
def test_a_learner_finds_stubs_all_tests_and_folded_solutions(course: Path, sheet: Path) -> None:
    cells = read(course / "learner" / sheet.name).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert "HIDDEN" not in code + prose
    assert "SOLUTION" not in code + prose
    assert not any("nbgrader" in cell.metadata or "editable" in cell.metadata for cell in cells)
    for cell in read(sheet).cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            lines = [line for line in cell.source.splitlines() if "SOLUTION" not in line]
            assert "\n".join(lines) in prose
            assert prose.count("<details>") >= 2
        elif grade_id(cell):
            lines = [line for line in cell.source.splitlines() if "HIDDEN TESTS" not in line]
            assert "\n".join(lines).rstrip() in code


def test_what_a_learner_has_begun_is_left_alone_and_sheets_are_made_anew(course: Path) -> None:
    begun = course / "learner" / f"{SHEET}.ipynb"
    released = course / "release" / SHEET / f"{SHEET}.ipynb"
    text = begun.read_text(encoding="utf-8")
    begun.write_text("begun", encoding="utf-8")
    released.write_text("spoilt", encoding="utf-8")
    try:
        assert run("editions", course).returncode == 0
        assert begun.read_text(encoding="utf-8") == "begun"
        assert grade_id(read(released).cells[3]) == "best-answer"
    finally:
        begun.write_text(text, encoding="utf-8")


def test_the_figures_of_the_chapters_become_slides(course: Path) -> None:
    pictures = sorted(path.name for path in (course / "slides").glob("*.png"))
    lines = (course / "slides" / "figures.txt").read_text(encoding="utf-8").splitlines()
    assert [line.partition(": ")[0] for line in lines] == pictures
    assert "00_2.png" in pictures
    assert (course / "slides" / "00_1.png").read_bytes() == (
        ROOT / "book" / "_static" / "start_here.png"
    ).read_bytes()


# ---- Grades ---------------------------------------------------------------------------------

COUNTS_ROWS = """
def vote_of_64(rows):
    votes, right = {}, {}
    for row in rows:
        votes.setdefault(row["prompt"], Counter())[row["steps"][-1]] += 1
        right[row["prompt"], row["steps"][-1]] = row["label"]
    return sum(right[p, max(c, key=c.get)] for p, c in votes.items()) / len(votes)
"""
#: Answers to the cells of the sheet: wrong in one exercise, and made for the visible tests.
PARTLY = {"ceiling": COUNTS_ROWS, "ceiling-words": "More votes, more truth."}
CHEAT = {
    "best-answer": 'def best_answer(answers, step_rewards):\n    return "21"',
    "ceiling": "def vote_of_64(rows):\n    return 0.5",
}


def submit(
    course: Path, student: str, answers: Mapping[str, str], edition: str = "release"
) -> None:
    notebook = read(course / edition / SHEET / f"{SHEET}.ipynb")
    cells = {grade_id(cell): cell for cell in notebook.cells}
    for name, source in answers.items():
        cells[name].source = source.strip()
    target = course / "submitted" / student / SHEET / f"{SHEET}.ipynb"
    target.parent.mkdir(parents=True)
    nbformat.write(notebook, target)


def grades(course: Path) -> dict[str, dict[str, str]]:
    with (course / "grades.csv").open(encoding="utf-8") as file:
        return {
            row["student_id"]: row for row in csv.DictReader(file) if row["assignment"] == SHEET
        }


@pytest.mark.slow
def test_submissions_get_the_grades_they_deserve(course: Path) -> None:
    solved: dict[str, str] = {
        cell.metadata["nbgrader"]["grade_id"]: cell.source
        for cell in read(course / "source" / SHEET / f"{SHEET}.ipynb").cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }
    best = {"best-answer": solved["best-answer"]}
    submit(course, "perfect", solved)
    submit(course, "partly", best | PARTLY)
    submit(course, "cheat", CHEAT)
    result = run("grades", course)
    assert result.returncode == 0, result.stdout + result.stderr
    found = grades(course)
    # Of 10 points 3 are for words, which somebody has to read.
    assert {student: float(row["score"]) for student, row in found.items()} == {
        "perfect": 7, "partly": 5, "cheat": 2
    }  # fmt: skip
    assert {row["max_score"] for row in found.values()} == {"10.0"}
    feedback = {
        student: (course / "feedback" / student / SHEET / f"{SHEET}.html").read_text("utf-8")
        for student in found
    }
    assert "AssertionError" not in feedback["perfect"]
    assert "in no way that this check knows" in feedback["cheat"]


TINY = [
    ("solution", "loop", "def endless():\n    # BEGIN SOLUTION\n    return 1\n    # END SOLUTION"),
    ("test", "loop-test", "assert endless() == 1"),
    ("solution", "room", "def large():\n    # BEGIN SOLUTION\n    return 1\n    # END SOLUTION"),
    ("test", "room-test", "assert large() == 1"),
]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """course.py on a sheet of two tiny exercises that need no imports."""
    specification = importlib.util.spec_from_file_location("course", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    notebook = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "P"}})
    for kind, name, source in TINY:
        cell = new_code_cell(source)
        graded = kind == "test"
        cell.metadata["nbgrader"] = {
            "schema_version": 3, "grade_id": name, "grade": graded, "solution": not graded,
            "locked": graded, "task": False, **({"points": 1} if graded else {}),
        }  # fmt: skip
        notebook.cells.append(cell)
    sheets = tmp_path / "chapters" / "exercises"
    sheets.mkdir(parents=True)
    nbformat.write(notebook, sheets / f"{SHEET}.ipynb")
    monkeypatch.setattr(module, "SHEETS", sheets)
    return module


@pytest.mark.slow
def test_time_and_memory_are_limited_and_the_rest_is_still_graded(
    script: ModuleType, tmp_path: Path
) -> None:
    course = tmp_path / "course"
    script.write_editions(course)
    settings = course / "nbgrader_config.py"
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text.replace("timeout = 120", "timeout = 10"), encoding="utf-8")
    endless = "def endless():\n    while True:\n        pass"
    submit(course, "slow", {"loop": endless, "room": "def large():\n    return 1"})
    large = "def large():\n    return len(bytearray(6 * 2**30)) and 1"
    submit(course, "large", {"loop": "def endless():\n    return 1", "room": large})
    assert script.write_grades(course) == 0
    assert {name: float(row["score"]) for name, row in grades(course).items()} == {
        "slow": 1, "large": 1 if sys.platform == "linux" else 2
    }  # fmt: skip
    outputs = {
        name: str(read(course / "autograded" / name / SHEET / f"{SHEET}.ipynb").cells)
        for name in ("slow", "large")
    }
    assert "CellTimeoutError" in outputs["slow"] or "KeyboardInterrupt" in outputs["slow"]
    assert ("MemoryError" in outputs["large"]) == (sys.platform == "linux")


def test_a_submission_that_is_no_notebook_is_reported_and_the_others_are_graded(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    course = tmp_path / "course"
    script.write_editions(course)
    submit(course, "good", {"loop": "def endless():\n    return 1"})
    broken = course / "submitted" / "broken" / SHEET / f"{SHEET}.ipynb"
    broken.parent.mkdir(parents=True)
    broken.write_text("no notebook", encoding="utf-8")
    assert script.write_grades(course) == 1
    assert "broken, 00_choose_an_answer: NOT graded" in capsys.readouterr().out
    assert float(grades(course)["good"]["score"]) == 1
