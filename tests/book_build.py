"""`make book` for the tests: the repository, or a small book with the same configuration."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Book:
    """The folder of a book's pages, and the processor seconds of its build."""

    pages: Path
    seconds: float


def build(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """`make book` on the repository or a copy of its layout; pages in ``output``/_build/html."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (flags,) = re.findall(r"^BOOK_FLAGS := (.*)$", makefile, flags=re.MULTILINE)
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", ".", *flags.split()]
    command += ["--path-output", str(output)]
    return subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)


def build_once(folder: Path) -> Book:
    """The repository's book in ``folder``: the first that asks builds it, others wait for it."""
    seconds = folder / "seconds"
    with FileLock(folder / "lock"):
        if not seconds.exists():
            before = children_seconds()
            result = build(ROOT, folder)
            assert result.returncode == 0, result.stdout + result.stderr
            seconds.write_text(str(children_seconds() - before), encoding="utf-8")
    return Book(folder / "_build" / "html", float(seconds.read_text(encoding="utf-8")))


def children_seconds() -> float:
    """Processor time of the processes that this one has started and waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
