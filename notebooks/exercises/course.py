"""The three editions of the exercise sheets, and the grades of a folder of submissions.

`make classroom` writes to the course folder, from the sheets beside this file:

    source/     the teacher's edition: solutions, hidden tests, rubrics
    release/    the students' edition, made by nbgrader: neither
    learner/    for learners on their own: stubs, all tests, solutions folded away
    slides/     the figures of the chapters as images, with their alt texts

`make grades` runs what lies in submitted/STUDENT/SHEET/SHEET.ipynb and writes autograded/,
feedback/ and grades.csv.
"""

from __future__ import annotations

import argparse
import base64
import html
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from nbgrader.apps import NbGraderAPI
from nbgrader.plugins import CsvExportPlugin
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

SHEETS = Path(__file__).resolve().parent
SETTINGS = SHEETS / "nbgrader_config.py"
HIDDEN = re.compile(r"^ *# (BEGIN|END) HIDDEN TESTS\n?", flags=re.MULTILINE)
REGION = re.compile(r"^ *# (BEGIN|END) SOLUTION\n?", flags=re.MULTILINE)
FIGURE = re.compile(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]*)"')


def settings(course: Path) -> Config:
    """nbgrader's settings: those of the course folder, which a teacher may have changed."""
    # nbgrader starts `alembic` by its name, which is found only in an activated environment.
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    config = PyFileConfigLoader(str(course / SETTINGS.name)).load_config()
    config.CourseDirectory.root = str(course)
    return config


def grade_id(cell: NotebookNode) -> str | None:
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def folded(title: str, text: str) -> NotebookNode:
    return new_markdown_cell(f"<details>\n<summary>{title}</summary>\n\n{text}\n\n</details>")


def learner_cells(source: NotebookNode, release: NotebookNode) -> Iterator[NotebookNode]:
    """The released cells with every test in view, each stub followed by its folded solution."""
    originals = {grade_id(cell): cell for cell in source.cells}
    for cell in release.cells:
        identifier = grade_id(cell)
        original = originals.get(identifier)
        metadata = cell.metadata.pop("nbgrader", {})
        for lock in ("deletable", "editable"):
            cell.metadata.pop(lock, None)
        if identifier is None or original is None:
            yield cell
        elif not metadata["solution"]:
            cell.source = HIDDEN.sub("", original.source).rstrip()
            yield cell
        elif cell.cell_type == "code":
            yield cell
            code = REGION.sub("", original.source).rstrip()
            yield folded("One solution", f"```python\n{code}\n```")
        else:
            yield cell
            yield new_markdown_cell(original.source)


def write_editions(course: Path) -> None:
    """Write every edition; what a learner has begun in learner/ is left alone."""
    course.mkdir(parents=True, exist_ok=True)
    if not (course / SETTINGS.name).exists():
        shutil.copy(SETTINGS, course)
    api = NbGraderAPI(config=settings(course))
    for sheet in sorted(SHEETS.glob("*.ipynb")):
        name = sheet.stem
        source = course / "source" / name / sheet.name
        source.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sheet, source)
        result = api.generate_assignment(name)
        if not result["success"]:
            raise RuntimeError(f"nbgrader released {name} with an error:\n{result['log']}")
        learner = course / "learner" / sheet.name
        if not learner.exists():
            learner.parent.mkdir(exist_ok=True)
            released = course / "release" / name / sheet.name
            notebook = nbformat.read(released, as_version=4)
            original = nbformat.read(sheet, as_version=4)
            notebook.cells = list(learner_cells(original, notebook))
            nbformat.write(notebook, learner)
    write_slides(course / "slides")


def write_slides(folder: Path) -> None:
    """The stored figures of the chapters as NN_K.png, and what they show in figures.txt."""
    folder.mkdir(exist_ok=True)
    lines = []
    for chapter in sorted(SHEETS.parent.glob("[0-9][0-9]_*.ipynb")):
        notebook = nbformat.read(chapter, as_version=4)
        pages = [
            output.get("data", {}).get("text/html", "")
            for cell in notebook.cells
            for output in cell.get("outputs", ())
        ]
        for number, (data, alt) in enumerate(FIGURE.findall("".join(pages)), 1):
            name = f"{chapter.stem[:2]}_{number}.png"
            (folder / name).write_bytes(base64.b64decode(data))
            lines.append(f"{name}: {html.unescape(alt)}")
    (folder / "figures.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_grades(course: Path) -> int:
    """Grade every submission, write feedback and grades.csv; how many could not be graded."""
    api = NbGraderAPI(config=settings(course))
    failures = 0
    for submission in sorted((course / "submitted").glob("*/*/")):
        student, sheet = submission.parent.name, submission.name
        graded = api.autograde(sheet, student)
        done = graded["success"] and api.generate_feedback(sheet, student)["success"]
        print(f"{student}, {sheet}: {'graded' if done else 'NOT graded'}")
        if not done:
            print(graded.get("log") or graded.get("error"), file=sys.stderr)
            failures += 1
    with api.gradebook as gradebook:
        CsvExportPlugin(to=str(course / "grades.csv")).export(gradebook)
    print(
        f"grades: {course / 'grades.csv'}; written answers are graded by hand: nbgrader formgrader"
    )
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description="Editions of the exercise sheets, and grades.")
    parser.add_argument("task", choices=("editions", "grades"))
    parser.add_argument("course", type=Path, help="the course folder")
    arguments = parser.parse_args()
    course = arguments.course.resolve()
    if arguments.task == "grades":
        return 1 if write_grades(course) else 0
    write_editions(course)
    print(f"{course}: source/ (teacher), release/ (students), learner/, slides/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
