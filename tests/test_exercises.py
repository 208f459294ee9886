"""The exercise sheets: what each must hold, beside the rules of tests/test_notebooks.py.

Each rule is a function from a sheet to a list of problems, tested on the sheets and on a sheet that
breaks it.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from implicitprm.classroom import EXERCISES, HINTS

ROOT = Path(__file__).resolve().parents[1]
SHEETS = sorted((ROOT / "notebooks" / "exercises").glob("*.ipynb"))
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: Chapters whose sheet is not written yet.
WITHOUT_SHEET = {"13", "14"}
ABOUT = re.compile(
    r"\*(code|derivation|experiment) · (\d+) minutes · (easy|medium|hard) · (\d+) points\*"
)
TEACHING = ROOT / "book" / "teaching"

Rule = Callable[[NotebookNode], list[str]]


def text(sheet: NotebookNode) -> str:
    return "\n".join(cell.source for cell in sheet.cells)


def about(sheet: NotebookNode) -> list[tuple[str, int, str, int]]:
    """Kind, minutes, difficulty and points of each exercise."""
    return [(kind, int(m), how, int(p)) for kind, m, how, p in ABOUT.findall(text(sheet))]


def graded(sheet: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in sheet.cells if "nbgrader" in cell.metadata]


# ---- The rules ------------------------------------------------------------------------------


def announced(sheet: NotebookNode) -> list[str]:
    """Each exercise has a goal and says kind, minutes, difficulty and points, which add up."""
    exercises = about(sheet)
    problems = []
    titles = len(re.findall(r"^## Exercise \d", text(sheet), flags=re.MULTILINE))
    goals = len(re.findall(r"^\*\*Goal:\*\* \w", text(sheet), flags=re.MULTILINE))
    if not titles == goals == len(exercises) > 0:
        problems.append(f"{titles} exercises, {goals} goals, {len(exercises)} lines about them")
    minutes, points = sum(m for _, m, _, _ in exercises), sum(p for *_, p in exercises)
    total = re.search(r"exercises?, (\d+) minutes, (\d+) points\.", sheet.cells[0].source)
    if total is None or (int(total[1]), int(total[2])) != (minutes, points):
        problems.append(f"the first cell does not say {minutes} minutes and {points} points")
    given = sum(cell.metadata["nbgrader"].get("points", 0) for cell in graded(sheet))
    if given != points:
        problems.append(f"nbgrader gives {given} points, the text {points}")
    return problems


def cells_of_nbgrader(sheet: NotebookNode) -> list[str]:
    """Schema 3, names of their own, stubs where solutions are, tests that cannot be edited."""
    problems = []
    names = [cell.metadata["nbgrader"]["grade_id"] for cell in graded(sheet)]
    if len(set(names)) != len(names):
        problems.append("two cells have one grade_id")
    for cell in graded(sheet):
        data = cell.metadata["nbgrader"]
        if data["schema_version"] != 3:
            problems.append(f"{data['grade_id']} is not of schema 3")
        region = "# BEGIN SOLUTION\n" in cell.source and "# END SOLUTION" in cell.source
        if cell.cell_type == "code" and data["solution"] != region:
            problems.append(f"{data['grade_id']} should have a solution region, or should not")
        if data["grade"] and not data["solution"] and not data["locked"]:
            problems.append(f"the test {data['grade_id']} is not locked")
    for cell in sheet.cells:
        if "nbgrader" not in cell.metadata and re.search("BEGIN|END", cell.source):
            problems.append("a region stands outside nbgrader's cells")
    return problems


def hidden_beside_visible(sheet: NotebookNode) -> list[str]:
    """Visible tests, hidden tests worth more points than they, and words with a rubric."""
    tests = [c for c in graded(sheet) if not c.metadata["nbgrader"]["solution"]]
    hidden = [c for c in tests if "# BEGIN HIDDEN TESTS" in c.source]
    points = [
        sum(c.metadata["nbgrader"]["points"] for c in cells)
        for cells in (hidden, [c for c in tests if c not in hidden])
    ]
    words = [c for c in graded(sheet) if c.cell_type == "markdown"]
    problems = [] if hidden and len(tests) > len(hidden) else ["a kind of test is missing"]
    if points[0] < points[1]:
        problems.append("the visible tests are worth more than the hidden ones")
    if not words:
        problems.append("nothing is to be explained")
    for cell in words:
        rows = [int(row) for row in re.findall(r"^\| (\d+) \|", cell.source, flags=re.MULTILINE)]
        if sum(rows) != cell.metadata["nbgrader"]["points"]:
            problems.append(
                f"the rubric of {cell.metadata['nbgrader']['grade_id']} adds up to {sum(rows)}"
            )
    return problems


def hints_and_checks(sheet: NotebookNode) -> list[str]:
    """A pair of hints for each exercise, and no check that does not exist."""
    named = re.findall(r'`hint\("([^"]+)"\)`', text(sheet))
    problems = [f"no hints for {name}" for name in named if name not in HINTS]
    if len(named) != len(about(sheet)):
        problems.append(f"{len(named)} hints for {len(about(sheet))} exercises")
    checks = re.findall(r'check\("([^"]+)", (\w+)\)', text(sheet))
    problems += [f"no check {name}" for name, _ in checks if name not in EXERCISES]
    problems += [f"{name} checks {other}" for name, other in checks if name != other]
    return problems


RULES: tuple[Rule, ...] = (announced, cells_of_nbgrader, hidden_beside_visible, hints_and_checks)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.stem)
def test_sheet(sheet: Path, rule: Rule) -> None:
    assert rule(nbformat.read(sheet, as_version=4)) == []


def test_every_chapter_has_a_sheet() -> None:
    chapters = {path.stem[:2] for path in CHAPTERS}
    assert {path.stem[:2] for path in SHEETS} == chapters - WITHOUT_SHEET


def test_every_sheet_has_code_and_something_else() -> None:
    for path in SHEETS:
        kinds = [kind for kind, *_ in about(nbformat.read(path, as_version=4))]
        assert kinds == ["experiment"] or (kinds[0] == "code" and kinds[1] != "code"), path


def table_row(path: Path) -> str:
    """What the book's page on exercises says of a sheet."""
    sheet = nbformat.read(path, as_version=4)
    exercises = "; ".join(f"{kind}, {m} min, {how}" for kind, m, how, _ in about(sheet))
    words = [cell for cell in graded(sheet) if cell.cell_type == "markdown"]
    by_hand = sum(cell.metadata["nbgrader"]["points"] for cell in words)
    points = sum(p for *_, p in about(sheet))
    name = f"../notebooks/exercises/{path.stem}"
    return f"| {{doc}}`{name}` | {exercises} | {points}&nbsp;({by_hand}) |"


def test_the_book_lists_the_sheets_as_they_are() -> None:
    page = (ROOT / "book" / "exercises.md").read_text(encoding="utf-8")
    listed = [line for line in page.splitlines() if line.startswith("| {doc}`../notebooks")]
    assert listed == [table_row(path) for path in SHEETS]


def test_the_guide_names_the_limits_that_are_set() -> None:
    guide = (TEACHING / "guide.md").read_text(encoding="utf-8")
    settings = (SHEETS[0].parent / "nbgrader_config.py").read_text(encoding="utf-8")
    (seconds,) = re.findall(r"Execute\.timeout = (\d+)", settings)
    (lines,) = re.findall(r"max_lines = (\d+)", settings)
    (gibibytes,) = re.findall(r"MEMORY_BYTES = (\d+) \* 2\*\*30", settings)
    assert f"{seconds} seconds for each cell" in guide
    assert f"{lines} lines of output" in guide
    assert f"{gibibytes} GiB of memory" in guide


def test_numbers_of_the_class_on_chapter_00_are_outputs() -> None:
    lesson = (TEACHING / "class_00.md").read_text(encoding="utf-8")
    chapter, sheet = (nbformat.read(paths[0], as_version=4) for paths in (CHAPTERS, SHEETS))
    outputs = str([cell.get("outputs") for cell in [*chapter.cells, *sheet.cells]])
    quoted = [q for q in re.findall(r"`([^`\n]*\d[^`\n]*)`", lesson) if "/" not in q]
    quoted = [q for q in quoted if not q.endswith((".png", ".ipynb"))]
    assert len(quoted) >= 8
    assert [q for q in quoted if q not in outputs] == []


# ---- The checks of numbers, by mutation ------------------------------------------------------

#: For the second exercise of each sheet: its tests' cells start with this, and wrong answers.
WRONG_NUMBERS: dict[str, tuple[str, list[str]]] = {
    "00": ("ceiling", [
        "def vote_of_64(rows):\n    return 0.5",
        "def vote_of_64(rows):\n"
        "    labels = [row['label'] for row in rows]\n"
        "    return sum(labels) / len(labels)",
        "def vote_of_64(rows):\n"
        "    best = {row['prompt']: row['label'] for row in rows}\n"
        "    return sum(best.values()) / len(best)",
    ]),
    "01": ("beta", ["reward = math.log(3)", "factor = 10", "nats_per_token = 20",
                    "reward = 0.1 * (0.36 - 0.12)"]),
    "02": ("normalised", ["hard_problem = 1.0", "easy_problem = -math.log(0.9)", "ceiling = 1.0",
                          "hard_problem = 0.8 / 0.2"]),
    "03": ("between", ["at_one = 0.5", "at_one = math.log(math.e / 2)",
                       "beta_of_three_quarters = 1.0"]),
    "04": ("counts", ["of_rollouts = of_rows", "of_rows = of_rollouts",
                      "repeats = len(rows) / weight.sum()"]),
    "05": ("constant", ["best_constant = 0.608", "constant_loss = 0.608", "first_loss = 0.7"]),
    "06": ("shift", ["ce_best_shift = 0.0", "ce_best_shift = 2.0", "dpo_change = 0.1"]),
    "07": ("blind-spot", [
        "def accuracy(n, problems, rng):\n    return 0.6",
        "def accuracy(n, problems, rng):\n    return 1 - 0.4**n",
        "def accuracy(n, problems, rng):\n"
        "    right = rng.random((problems, n)) < 0.6\n"
        "    scores = rng.normal(size=(problems, n)) + right\n"
        "    return right[np.arange(problems), scores.argmax(axis=1)].mean()",
    ]),
    "08": ("ratio", ["ratio = 80 / 8", "needed = 38.8 * 8 / 2", "needed = 38.8",
                     "ratio = 2 * 80 / 6"]),
    "09": ("mixed", ["all_right, all_wrong = all_wrong, all_right", "mixed = 1.0",
                     "all_right, mixed = all_right + 0.1, mixed - 0.1"]),
    "10": ("uniform", ["per_token = math.log(128_000)", "break_even = math.log(128_000)",
                       "break_even = 3 * 0.05 * math.log(128_000)", "same_order = False"]),
    "11": ("minimum", ["by_chance = 1 / 6", "by_chance = (1 / steps).sum()",
                       "by_chance = (1 / steps).mean()",
                      "by_chance = weight.sum() / (weight * steps).sum()"]),
    "12": ("temperature", ["credit = -0.5", "credit = -1.0", "credit = -1 / (1 + math.e)",
                           "temperature = math.log(9)", "with_filler = temperature",
                           "with_filler = 1 / math.log(72)"]),
    "15": ("project", ["effects = effects[:1]", "judgement = 'holds'",
                       "effects = [Effect('a', (3.0, 1.0, 2.0)), effects[0]]"]),
}  # fmt: skip


def run_cells(cells: Iterable[NotebookNode], names: dict[str, Any]) -> dict[str, Any]:
    for cell in cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, cell.id, "exec"), names)
    return names


def cells_testing(sheet: NotebookNode, exercise: str) -> list[NotebookNode]:
    tests = [c for c in graded(sheet) if c.cell_type == "code" and c.metadata["nbgrader"]["grade"]]
    return [c for c in tests if c.metadata["nbgrader"]["grade_id"].startswith(f"{exercise}-")]


@pytest.mark.parametrize("path", SHEETS, ids=lambda path: path.stem)
def test_wrong_numbers_fail_and_so_does_a_blank_stub(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = nbformat.read(path, as_version=4)
    solved = run_cells(sheet.cells, {})
    exercise, wrong = WRONG_NUMBERS[path.stem[:2]]
    tests = cells_testing(sheet, exercise)
    assert len(tests) == 2
    started = time.process_time()
    run_cells([cell for cell in graded(sheet) if cell.metadata["nbgrader"]["grade"]], solved.copy())
    assert time.process_time() - started < 10
    for answer in wrong:
        names = solved.copy()
        exec(answer, names)
        with pytest.raises(AssertionError):
            run_cells(tests, names)
    given = [cell for cell in sheet.cells if "nbgrader" not in cell.metadata]
    blank = run_cells(given[:2], {})  # the title and the imports
    for cell in graded(sheet):
        if cell.cell_type == "code" and cell.metadata["nbgrader"]["grade"]:
            with pytest.raises(NameError):
                run_cells([cell], blank.copy())


def test_no_hint_and_no_code_exercise_of_the_sheets_is_forgotten() -> None:
    sheets = "".join(text(nbformat.read(path, as_version=4)) for path in SHEETS)
    chapters = "".join(text(nbformat.read(path, as_version=4)) for path in CHAPTERS)
    assert [name for name in EXERCISES if f'check("{name}"' not in sheets + chapters] == []
    of_sheets = [name for name in HINTS if f'check("{name}"' not in chapters]
    assert [name for name in of_sheets if f'hint("{name}")' not in sheets] == []
    assert set(EXERCISES) <= set(HINTS)


def broken(change: Callable[[NotebookNode], None]) -> NotebookNode:
    sheet = copy.deepcopy(nbformat.read(SHEETS[0], as_version=4))
    change(sheet)
    return sheet


def replace(index: int, old: str, new: str) -> Callable[[NotebookNode], None]:
    def change(sheet: NotebookNode) -> None:
        assert old in sheet.cells[index].source
        sheet.cells[index].source = sheet.cells[index].source.replace(old, new)

    return change


def set_metadata(index: int, **values: object) -> Callable[[NotebookNode], None]:
    return lambda sheet: sheet.cells[index].metadata["nbgrader"].update(values)


BROKEN: list[tuple[Rule, Callable[[NotebookNode], None]]] = [
    (announced, replace(0, "35 minutes", "30 minutes")),
    (announced, replace(2, "**Goal:**", "Goal")),
    (announced, replace(2, "easy · 4", "trivial · 4")),
    (announced, set_metadata(4, points=2)),
    (cells_of_nbgrader, set_metadata(3, schema_version=2)),
    (cells_of_nbgrader, set_metadata(4, grade_id="best-answer")),
    (cells_of_nbgrader, set_metadata(4, locked=False)),
    (cells_of_nbgrader, replace(3, "# BEGIN SOLUTION\n", "")),
    (cells_of_nbgrader, replace(0, "Two", "BEGIN SOLUTION two")),
    (hidden_beside_visible, set_metadata(4, points=9)),
    (hidden_beside_visible, replace(12, "| 1 |", "| 2 |")),
    (hidden_beside_visible, lambda sheet: sheet.cells.pop(12)),
    (hints_and_checks, replace(2, 'hint("best_answer")', 'hint("answer")')),
    (hints_and_checks, replace(5, '"best_answer"', '"answer"')),
    (hints_and_checks, replace(2, 'hint("best_answer")', "hint()")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "change"), BROKEN)
def test_a_broken_rule_is_found(rule: Rule, change: Callable[[NotebookNode], None]) -> None:
    assert rule(broken(change)) != []


def test_every_rule_is_shown_to_fail() -> None:
    assert {rule for rule, _ in BROKEN} == set(RULES)
