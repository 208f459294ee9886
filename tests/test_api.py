"""The book's own extensions: the package's pages."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from book_build import ROOT

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
    short, _ = api.shorten_types(None, "", "", None, None, f"({written})", None)
    assert short == (
        "(~numpy.typing.ArrayLike, ~numpy.typing.NDArray[~numpy.float64], "
        "~numpy.typing.ArrayLike | None)"
    )
