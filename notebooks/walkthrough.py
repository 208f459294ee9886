"""Execute the chapters from top to bottom and say how long each took.

`make walkthrough` executes every chapter in place, so that the stored outputs are this machine's,
and keeps the processor seconds of each in run_times.json, which the book shows. `make run` executes
one chapter into another folder, beside its rendering as HTML, and prints the results that the tests
compare; the stored chapter stays as it is.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from tqdm import tqdm
from traitlets.config import Config

NOTEBOOKS = Path(__file__).resolve().parent
CELL_TIMEOUT_SECONDS = 600
#: The README shows the first figure of chapter 00.
PICTURE = NOTEBOOKS.parent / "book" / "_static" / "start_here.png"
# Without keys for its sockets a kernel greets the reader with a warning.
ENCRYPTED = Config(KernelManager={"transport_encryption": "auto"})


@dataclass(frozen=True)
class Run:
    """One chapter's execution; ``error`` names the cell that failed, None if none did.

    ``processor_seconds`` are those of the kernel: they hardly depend on what else the machine does.
    """

    chapter: Path
    seconds: float
    processor_seconds: float
    error: str | None


def count_code_cells(chapter: Path) -> int:
    notebook = nbformat.read(chapter, as_version=4)
    return sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in notebook.cells)


def execute(chapter: Path, target: Path, bar: tqdm[Any]) -> Run:
    """Run ``chapter`` in a fresh kernel and write it to ``target``, unless a cell fails.

    ``bar`` moves on by one with each code cell.
    """
    notebook = nbformat.read(chapter, as_version=4)
    running = "the kernel's start"

    def on_start(cell: NotebookNode, cell_index: int) -> None:
        nonlocal running
        first_line = cell.source.strip().partition("\n")[0]
        running = f"cell {cell_index + 1} of {len(notebook.cells)} ({first_line})"

    client = NotebookClient(
        notebook,
        config=ENCRYPTED,
        timeout=CELL_TIMEOUT_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOKS)}},
        record_timing=False,
        coalesce_streams=True,
        on_cell_start=on_start,
        on_cell_executed=lambda **_: bar.update(),
    )
    start, before = time.perf_counter(), children_seconds()
    error = None
    try:
        # The bars of the chapter's own loops would be stored with its outputs.
        client.execute(env=os.environ | {"TQDM_DISABLE": "1"})
        nbformat.write(notebook, target)
    except CellExecutionError as failure:
        error = f"{running}: {failure.ename}: {failure.evalue}"
    except CellTimeoutError:
        error = f"{running}: not done after {CELL_TIMEOUT_SECONDS} s"
    except DeadKernelError:
        error = f"{running}: the kernel died (out of memory?)"
    return Run(chapter, time.perf_counter() - start, children_seconds() - before, error)


def children_seconds() -> float:
    """Processor seconds of all processes that this one has started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def keep_run_times(runs: Iterable[Run]) -> None:
    """Write the processor seconds of the chapters that ran to run_times.json beside them."""
    for run in runs:
        path = run.chapter.with_name("run_times.json")
        times = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        times[run.chapter.stem] = round(run.processor_seconds, 1)
        path.write_text(json.dumps(dict(sorted(times.items())), indent=1) + "\n", encoding="utf-8")


def compared_text(notebook: NotebookNode) -> str:
    """The text outputs of the cells that the tests compare: the chapter's main results."""
    texts = []
    for cell in notebook.cells:
        if "nbval-check-output" not in cell.metadata.get("tags", []):
            continue
        for output in cell.outputs:
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            texts.append(text.rstrip("\n"))
    return "\n\n".join(text for text in texts if text)


def run_into(chapter: Path, folder: Path) -> int:
    """Execute ``chapter`` into ``folder``, render it, print its main results; the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / chapter.name
    with tqdm(total=count_code_cells(chapter), desc=chapter.stem, unit="cell") as bar:
        run = execute(chapter, target, bar)
    if run.error:
        print(f"{chapter.name} failed in {run.error}", file=sys.stderr)
        return 1
    notebook = nbformat.read(target, as_version=4)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    html = target.with_suffix(".html")
    html.write_text(page, encoding="utf-8")
    print(f"\n{compared_text(notebook)}\n")
    print(f"{chapter.name} ran in {run.seconds:.0f} s; open {html} to see all of it.")
    return 0


def first_figure(notebook: NotebookNode) -> bytes:
    """The first image among the stored outputs, as PNG. Raises ValueError where there is none."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            html = output.get("data", {}).get("text/html", "")
            if image := re.search(r'data:image/png;base64,([^"]+)"', html):
                return base64.b64decode(image[1])
    raise ValueError("the chapter stores no figure")


def run_in_place(chapters: list[Path]) -> int:
    """Execute each of ``chapters`` in place, print a table of run times; the exit status."""
    runs = []
    with tqdm(total=sum(map(count_code_cells, chapters)), unit="cell") as bar:
        for chapter in chapters:
            bar.set_description(chapter.stem)
            runs.append(execute(chapter, chapter, bar))
            if chapter.stem == "00_start_here":
                PICTURE.write_bytes(first_figure(nbformat.read(chapter, as_version=4)))
    print()
    for run in sorted(runs, key=lambda run: run.seconds, reverse=True):
        print(f"{run.chapter.stem:<32}{run.seconds:7.1f} s{'   FAILED' if run.error else ''}")
    print(f"{'all chapters':<32}{sum(run.seconds for run in runs):7.1f} s")
    keep_run_times(run for run in runs if not run.error)
    failures = [run for run in runs if run.error]
    for run in failures:
        print(f"{run.chapter.name} failed in {run.error}; left unchanged", file=sys.stderr)
    return 1 if failures else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Execute the chapters from top to bottom.")
    parser.add_argument("chapters", nargs="*", type=Path, help="default: every chapter")
    parser.add_argument("--into", type=Path, help="a folder for one chapter's copy and HTML")
    arguments = parser.parse_args()
    chapters = arguments.chapters or sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if arguments.into is None:
        return run_in_place(chapters)
    if len(chapters) != 1:
        parser.error("--into takes one chapter")
    return run_into(chapters[0], arguments.into)


if __name__ == "__main__":
    sys.exit(main())
