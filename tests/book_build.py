"""`make book` for the tests: the repository, or a small book with the same configuration."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """`make book` on the repository or a copy of its layout; pages in ``output``/_build/html."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (flags,) = re.findall(r"^BOOK_FLAGS := (.*)$", makefile, flags=re.MULTILINE)
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", ".", *flags.split()]
    command += ["--path-output", str(output)]
    return subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)


def build_repository(output: Path) -> Path:
    """Build the book of the repository and return the folder of its pages."""
    result = build(ROOT, output)
    assert result.returncode == 0, result.stdout + result.stderr
    return output / "_build" / "html"
