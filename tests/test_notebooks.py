"""What the stored chapters must be like, and how they are executed.

nbval (`make test`) runs every chapter and compares the cells tagged ``nbval-check-output``. It
passes a cell that was never run or whose output nobody looks at, so the rules below ask for what
nbval does not. Each is a function from a notebook to a list of problems, tested on the chapters
and on a small notebook that breaks it.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[1]
#: The chapters and the exercise sheets in their solved edition.
CHAPTERS = sorted(
    [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "notebooks" / "exercises").glob("*.ipynb")]
)
MAX_LINES = 24
MAX_BYTES = 1_500_000

Rule = Callable[[NotebookNode], list[str]]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    """The code cells, each with the name under which a problem reports it."""
    for index, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code":
            yield f"cell {index}", cell


def texts(cell: NotebookNode) -> list[str]:
    """The text of a cell's stored outputs in all its forms; images are left out."""
    found = []
    for output in cell.outputs:
        found += [output.get("text", ""), *output.get("traceback", ())]
        data = output.get("data", {})
        found += [text for kind, text in data.items() if kind.startswith("text/")]
    return [text for text in found if text]


def plain_text(cell: NotebookNode) -> str:
    """What nbval compares of a cell: streams and text/plain."""
    return "".join(
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    )


# ---- The rules ------------------------------------------------------------------------------


def unrun_cells(notebook: NotebookNode) -> list[str]:
    """Every code cell was run from top to bottom in a fresh kernel, and nbval will run it."""
    problems = []
    for expected, (name, cell) in enumerate(code_cells(notebook), 1):
        if cell.execution_count != expected:
            problems.append(f"{name} has execution count {cell.execution_count}, not {expected}")
        if {"nbval-skip", "skip-execution"} & set(tags(cell)):
            problems.append(f"{name} is tagged to be skipped")
    return problems


def stored_errors(notebook: NotebookNode) -> list[str]:
    """A stored error stands only in a cell tagged raises-exception, and such a cell has one."""
    return [
        f"{name} {'stores an error' if error else 'stores no error'}"
        for name, cell in code_cells(notebook)
        for error in [any(output.output_type == "error" for output in cell.outputs)]
        if error != ("raises-exception" in tags(cell))
    ]


def compared_results(notebook: NotebookNode) -> list[str]:
    """At least one cell is compared, and each compared cell has text that can differ."""
    compared = [(n, c) for n, c in code_cells(notebook) if "nbval-check-output" in tags(c)]
    if not compared:
        return ["no cell is tagged nbval-check-output"]
    return [f"{n} is compared but shows no text" for n, c in compared if not plain_text(c).strip()]


#: Calls that only set the session up: a cell of these and of definitions need not assert.
SET_UP_CALLS = {
    "seed", "manual_seed", "set_seed", "set_num_threads", "use", "update", "simplefilter",
    "filterwarnings", "disable_progress_bar", "disable_progress_bars", "set_verbosity_error",
    "run_line_magic",
}  # fmt: skip


def called_name(node: ast.AST) -> str:
    """The last part of the name that a call calls: ``manual_seed`` of torch.manual_seed(0)."""
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


DEFINITIONS = (
    ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef,
    ast.Assign, ast.AnnAssign, ast.AugAssign,
)  # fmt: skip


def only_defines(tree: ast.Module | ast.With) -> bool:
    """Imports, definitions, assignments (also under ``with``), calls that set the session up."""
    for statement in tree.body:
        if isinstance(statement, ast.Expr):
            if called_name(statement.value) not in SET_UP_CALLS:
                return False
        elif isinstance(statement, ast.With):
            if not only_defines(statement):
                return False
        elif not isinstance(statement, DEFINITIONS):
            return False
    return True


def makes_a_check(tree: ast.Module) -> bool:
    """An assert statement, a call of an assert_… function, or of classroom's predict or check."""
    for node in ast.walk(tree):
        name = called_name(node)
        if isinstance(node, ast.Assert) or name in {"predict", "check"} or "assert_" in name:
            return True
    return False


def shows_a_figure(cell: NotebookNode) -> bool:
    """An image, a widget, or HTML that is more than the table of a data frame."""
    for output in cell.outputs:
        data = output.get("data", {})
        if any(kind.startswith(("image/", "application/vnd.jupyter.widget")) for kind in data):
            return True
        html = data.get("text/html", "")
        if html and 'class="dataframe"' not in html:
            return True
    return False


def ignored_outputs(notebook: NotebookNode) -> list[str]:
    """No cell computes or shows what neither nbval, nor an assertion, nor a reader looks at.

    A cell passes if its output is compared; if it asserts something or calls ``predict`` or
    ``check``; if it shows a figure; if it is tagged raises-exception; or if it only defines
    things (`only_defines`) and shows nothing. A loop, or a call for its effect, computes.
    """
    problems = []
    for name, cell in code_cells(notebook):
        if {"nbval-check-output", "raises-exception"} & set(tags(cell)):
            continue
        tree = ast.parse(TransformerManager().transform_cell(cell.source))
        silent_definition = only_defines(tree) and not cell.outputs
        if not (silent_definition or makes_a_check(tree) or shows_a_figure(cell)):
            problems.append(f"{name} is neither compared, nor asserts, nor defines, nor draws")
    return problems


def long_cells(notebook: NotebookNode) -> list[str]:
    """One idea a cell: at most 24 lines of code."""
    return [
        f"{name} has {len(cell.source.splitlines())} lines"
        for name, cell in code_cells(notebook)
        if len(cell.source.splitlines()) > MAX_LINES
    ]


def large_file(notebook: NotebookNode) -> list[str]:
    """A chapter stays reviewable and quick to load: under 1.5 MB."""
    size = len(nbformat.writes(notebook).encode())
    return [f"{size:,} bytes"] if size >= MAX_BYTES else []


OUTPUT_PATH = re.compile(r"(?<![\w.~}+=/:-])/(?:home|opt|root|tmp|Users|usr|var|work)/\w+")


def machine_paths(notebook: NotebookNode) -> list[str]:
    """No output tells where on somebody's machine the chapter ran."""
    return [
        f"{name} shows {match[0]}"
        for name, cell in code_cells(notebook)
        for text in texts(cell)
        for match in OUTPUT_PATH.finditer(text)
    ]


PROGRESS = re.compile(r"\d+%\|| \d+/\d+ \[|\bit/s\b|\bs/it\b")


def noise(notebook: NotebookNode) -> list[str]:
    """No progress bars in the outputs, and nothing on stderr: warnings are mended, not stored."""
    problems = []
    for name, cell in code_cells(notebook):
        if any(PROGRESS.search(text) for text in texts(cell)):
            problems.append(f"{name} stores a progress bar")
        if any(output.get("name") == "stderr" for output in cell.outputs):
            problems.append(f"{name} stores text from stderr")
    return problems


def other_kernel(notebook: NotebookNode) -> list[str]:
    """The kernel is python3, which every Jupyter installation has."""
    name = notebook.metadata.get("kernelspec", {}).get("name")
    return [] if name == "python3" else [f"the kernel is {name}"]


RULES: tuple[Rule, ...] = (
    unrun_cells,
    stored_errors,
    compared_results,
    ignored_outputs,
    long_cells,
    large_file,
    machine_paths,
    noise,
    other_kernel,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_chapter(chapter: Path, rule: Rule) -> None:
    assert rule(nbformat.read(chapter, as_version=4)) == []


# ---- Each rule on a notebook that keeps all, and on one that breaks it ----------------------


def stream(text: str, name: str = "stdout") -> NotebookNode:
    return new_output("stream", name=name, text=text)


def shown(**data: str) -> NotebookNode:
    """An output with ``data`` by kind: ``text_html`` stands for text/html."""
    return new_output("display_data", data={k.replace("_", "/", 1): v for k, v in data.items()})


def code(source: str, *outputs: NotebookNode, tagged: str = "") -> NotebookNode:
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": tagged.split()})


def notebook_of(*cells: NotebookNode, kernel: str = "python3") -> NotebookNode:
    """A chapter of a title, one compared result, and ``cells``; as if run from top to bottom."""
    title = new_markdown_cell("# A question")
    result = code("print(1 + 1)", stream("2\n"), tagged="nbval-check-output")
    for count, cell in enumerate([result, *cells], 1):
        cell.execution_count = count
    kernelspec = {"name": kernel, "display_name": "Python 3"}
    return new_notebook(cells=[title, result, *cells], metadata={"kernelspec": kernelspec})


def counted(count: int | None) -> NotebookNode:
    """A notebook whose last cell has another execution count than the order of cells says."""
    notebook = notebook_of(code("x = 1"))
    notebook.cells[-1].execution_count = count
    return notebook


FRAME = '<table border="1" class="dataframe"><tr><td>1</td></tr></table>'

KEPT = [
    code("import torch\n\ntorch.manual_seed(0)\nx = torch.ones(3)"),
    code("# why\ndef f(x):\n    return x"),
    code("%matplotlib inline"),
    code("with torch.no_grad():\n    y = model(x)\nnames |= {'y'}"),
    code("for x in range(3):\n    assert x < 3"),
    code("torch.testing.assert_close(x, x)\nprint(x)", stream("1\n")),
    code('predict("which one?", ["a", "b"])', shown(text_html=FRAME)),
    code("check(answer)", stream("right\n")),
    code("draw(x)", shown(image_png="iVBORw0KGgo=", text_plain="<Figure>")),
    code("scored", shown(text_html="<div>steps</div>", text_plain="ScoredSolution")),
    code("1 / 0", new_output("error", ename="E", evalue="", traceback=["E"]),
         tagged="raises-exception"),
    code("\n".join(["x = 1"] * MAX_LINES)),
    code("assert page", stream("see https://example.org/usr/x and ratio 3/4, 50%\n")),
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_notebook_keeps_every_rule(rule: Rule) -> None:
    assert rule(notebook_of(*KEPT)) == []


BROKEN: list[tuple[Rule, NotebookNode]] = [
    (unrun_cells, counted(None)),
    (unrun_cells, counted(7)),
    (unrun_cells, notebook_of(code("x = 1", tagged="nbval-skip"))),
    (unrun_cells, notebook_of(code("x = 1", tagged="skip-execution"))),
    (stored_errors, notebook_of(code("1 / 0", new_output("error", ename="E", evalue="")))),
    (stored_errors, notebook_of(code("1 / 1", stream("1.0"), tagged="raises-exception"))),
    (compared_results, notebook_of(code("draw()", shown(image_png="x"),
                                        tagged="nbval-check-output"))),
    (compared_results, notebook_of(code("x = 1", tagged="nbval-check-output"))),
    (ignored_outputs, notebook_of(code("print(loss)", stream("0.1\n")))),
    (ignored_outputs, notebook_of(code("x = noisy()", stream("0.1\n")))),
    (ignored_outputs, notebook_of(code("frame", shown(text_html=FRAME)))),
    (ignored_outputs, notebook_of(code("for x in y:\n    step(x)"))),
    (ignored_outputs, notebook_of(code("trainer.train()"))),
    (ignored_outputs, notebook_of(code("with torch.no_grad():\n    step(x)"))),
    (ignored_outputs, notebook_of(code("check_solution(x)", stream("True\n")))),
    (ignored_outputs, notebook_of(code("x"))),
    (long_cells, notebook_of(code("\n".join(["x = 1"] * (MAX_LINES + 1))))),
    (large_file, notebook_of(code("draw()", shown(image_png="x" * MAX_BYTES)))),
    (machine_paths, notebook_of(code("print(p)", stream("in /tmp/ipykernel_1/2.py\n")))),
    (machine_paths, notebook_of(code("p", shown(text_plain="PosixPath('/usr/lib/x')")))),
    (noise, notebook_of(code("train()", stream(" 10%|█         | 1/10")))),
    (noise, notebook_of(code("train()", shown(text_plain="  0%|          | 0/3")))),
    (noise, notebook_of(code("train()", stream("UserWarning\n", name="stderr")))),
    (other_kernel, notebook_of(kernel="my-venv")),
    (other_kernel, new_notebook()),
    (compared_results, new_notebook(cells=[code("x = 1")])),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "notebook"), BROKEN, ids=lambda x: getattr(x, "__name__", ""))
def test_a_broken_rule_is_found(rule: Rule, notebook: NotebookNode) -> None:
    assert len(rule(notebook)) == 1


def test_every_rule_is_shown_to_fail() -> None:
    assert {rule for rule, _ in BROKEN} == set(RULES)


# ---- nbval with the Makefile's options ------------------------------------------------------


def nbval(folder: Path) -> subprocess.CompletedProcess[str]:
    """The pytest of `make test`, on the notebooks of ``folder`` alone."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (options,) = re.findall(r"^NBVAL_FLAGS := (.*)$", makefile, flags=re.MULTILINE)
    command = [sys.executable, "-m", "pytest", *options.split(), "-p", "no:cacheprovider", "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_nbval_finds_a_changed_result_and_a_failed_assertion(tmp_path: Path) -> None:
    # Each cell needs the one before it, so they pass only if one worker runs all of them.
    chain = [code("n = 0"), *(code(f"n += 1\nassert n == {count}") for count in range(1, 9))]
    notebook = notebook_of(*chain, code("assert n == 0"))
    notebook.cells[1].outputs = [stream("3\n")]
    nbformat.write(notebook, tmp_path / "chapter.ipynb")
    result = nbval(tmp_path)
    assert result.returncode == 1, result.stdout
    failed = re.findall(r"^FAILED chapter\.ipynb::Cell (\d+)", result.stdout, flags=re.MULTILINE)
    assert failed == ["0", "10"], result.stdout


# ---- walkthrough.py -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def walkthrough() -> ModuleType:
    path = ROOT / "notebooks" / "walkthrough.py"
    specification = importlib.util.spec_from_file_location("walkthrough", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["walkthrough"] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def chapters(tmp_path: Path) -> tuple[Path, Path]:
    """A chapter whose stored result is out of date, and one whose third cell fails."""
    good, bad = tmp_path / "00_good.ipynb", tmp_path / "01_bad.ipynb"
    bar = "from tqdm import tqdm\nassert list(tqdm([1]))\nprint('not compared')"
    stale = notebook_of(code(bar))
    stale.cells[1].outputs = [stream("stale\n")]
    nbformat.write(stale, good)
    nbformat.write(notebook_of(code("x = 1\nraise ValueError('no such step')")), bad)
    return good, bad


def test_a_run_into_a_folder_leaves_the_stored_chapter_alone(
    walkthrough: ModuleType,
    chapters: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good, _ = chapters
    before = good.read_bytes()
    assert walkthrough.run_into(good, tmp_path / "build") == 0
    assert good.read_bytes() == before
    executed = nbformat.read(tmp_path / "build" / good.name, as_version=4)
    assert unrun_cells(executed) == []
    assert noise(executed) == []
    assert executed.cells[1].outputs[0].text == "2\n"
    page = tmp_path / "build" / "00_good.html"
    assert "A question" in page.read_text(encoding="utf-8")
    output = capsys.readouterr().out
    assert output.startswith("\n2\n\n00_good.ipynb ran in ")
    assert str(page) in output
    assert "not compared" not in output


def test_a_walkthrough_stores_what_ran_and_names_the_cell_that_failed(
    walkthrough: ModuleType, chapters: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = chapters
    before = bad.read_bytes()
    assert walkthrough.run_in_place([good, bad]) == 1
    executed = nbformat.read(good, as_version=4)
    assert executed.cells[1].outputs[0].text == "2\n"
    assert noise(executed) == []
    assert bad.read_bytes() == before
    output, errors = capsys.readouterr()
    assert re.search(r"^01_bad +[\d.]+ s   FAILED$", output, flags=re.MULTILINE)
    assert re.search(r"^00_good +[\d.]+ s$", output, flags=re.MULTILINE)
    assert "01_bad.ipynb failed in cell 3 of 3 (x = 1): ValueError: no such step" in errors
    assert "00_good" not in errors
    times = json.loads((good.parent / "run_times.json").read_text(encoding="utf-8"))
    assert list(times) == ["00_good"]
    assert 0 < times["00_good"] < 60  # a kernel's start and one cell


def test_a_failed_run_into_a_folder_exits_with_an_error(
    walkthrough: ModuleType,
    chapters: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, bad = chapters
    assert walkthrough.run_into(bad, tmp_path / "build") == 1
    assert "cell 3 of 3" in capsys.readouterr().err
    assert not (tmp_path / "build" / "01_bad.html").exists()
