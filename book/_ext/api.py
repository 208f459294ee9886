"""The pages of the package: sphinx.ext.autodoc, and what it lacks for them.

A module's text ends with the chapter that introduces it. Functions and classes without a docstring
are listed all the same; constants are where a ``#:`` comment explains them, with their value if it
is short; fields of a dataclass stand in its signature and are not listed again. A signature has the
names of the package's types, not what they stand for. ``{commands}`` lists the command line.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from dataclasses import is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy.typing as npt
from docutils import nodes
from linkable import replace_matches
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import PycodeError
from sphinx.ext.autodoc import DataDocumenter
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.inspect import stringify_signature
from sphinx.util.nodes import make_refnode
from sphinx.util.typing import stringify_annotation

#: The longest value of a constant that is shown, in characters.
SHOWN_VALUE = 100
#: Their values are the same everywhere; a path, for one, would name the machine of the build.
PLAIN = (int, float, str, tuple)

ARRAY_LIKE = stringify_annotation(npt.ArrayLike, "smart")
ARRAY = re.compile(r"~numpy\.ndarray\[.*?, ~numpy\.dtype\[([\w~.]*)\]\]")

#: Types of the package that autodoc unfolds; one that contains another stands before it.
ALIASES = (
    "implicitprm.comparisons.math_shepherd.Grader",
    "implicitprm.reinforce.loop.StepRewards",
    "implicitprm.reinforce.loop.Evaluate",
    "implicitprm.beam_search.Guide",
    "implicitprm.steps.Prompt",
    "implicitprm.stackmachine.normal.Form",
    "implicitprm.stackmachine.normal.Core",
    "implicitprm.stackmachine.problems.Expression",
)
#: Code in the text of the command line: in backquotes, or an option.
CODE = re.compile(r"`([^`]+)`|(?<!\S)(--[a-z][a-z-]+)")

#: A parameter of a command, with what typer says of it: an object at some address.
OPTION = re.compile(r"~\w+\.Annotated\[(.*?), <[^>]*>\]")


@cache
def imports_of_chapters(root: Path) -> dict[str, str]:
    """Each chapter's code, by the name of its page, in reading order."""
    sources = {}
    for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        sources[f"notebooks/{path.stem}"] = "\n".join(code)
    return sources


def introducing_chapter(module: str, chapters: dict[str, str]) -> str | None:
    """The first page whose code imports from ``module``, or from the package that it is in."""
    names = [module]
    if module.count(".") > 1:
        names.append(module.rpartition(".")[0])
    for name in names:
        statement = re.compile(rf"^\s*(?:from|import) {re.escape(name)}\b(?!\.)", re.MULTILINE)
        for page, source in chapters.items():
            if statement.search(source):
                return page
    return None


def name_the_chapter(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    if what != "module":
        return
    if page := introducing_chapter(name, imports_of_chapters(Path(app.srcdir))):
        lines += ["", f"First used in chapter :doc:`/{page}`.", ""]


def own_parameters(cls: type) -> str | None:
    """The signature of a class that takes it from another package's, its own fields apart.

    ImplicitPRMConfig has over a hundred fields of TrainingArguments. None for other classes.
    """
    packages = [base.__module__.partition(".")[0] for base in cls.__mro__]
    starts = next(base for base in cls.__mro__ if "__init__" in vars(base))
    written_here = starts.__module__.startswith("implicitprm") and not is_dataclass(starts)
    if written_here or set(packages) <= {"implicitprm", *sys.stdlib_module_names}:
        return None
    parameters = inspect.signature(cls).parameters.values()
    own = [p for p in parameters if p.name in inspect.get_annotations(cls)]
    own.append(inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD))
    return stringify_signature(inspect.Signature(own))


@cache
def unfolded() -> dict[str, str]:
    """What autodoc writes for each of ALIASES → its name."""
    found = {}
    for name in ALIASES:
        module, _, alias = name.rpartition(".")
        found[stringify_annotation(getattr(import_module(module), alias), "smart")] = f"~{name}"
    return found


def find_alias(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """The place of a type that is a constant; Sphinx looks for a class of that name."""
    entry = env.domaindata["py"]["objects"].get(node.get("reftarget"))
    if entry is None or entry.objtype != "data":
        return None
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content)


def shorten_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str, str]:
    """Name types as they are written, which autodoc unfolds, NumPy's over several lines."""

    def short(text: str) -> str:
        text = (text or "").replace(ARRAY_LIKE, "~numpy.typing.ArrayLike")
        text = ARRAY.sub(r"~numpy.typing.NDArray[\1]", text)
        text = OPTION.sub(r"\1", text).replace("<factory>", "...")
        for written, name in unfolded().items():
            text = text.replace(written, name)
        # What stands in <> is no Python, and Sphinx then shows all of it as it is.
        return re.sub(r"~(?:\w+\.)*", "", text) if "<" in text else text

    if getattr(obj, "_is_protocol", False):
        return "", returns  # nobody calls it
    own = own_parameters(obj) if isinstance(obj, type) else None
    return short(own or signature), short(returns)


def keep_code(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Keep functions, classes and properties that have no text of their own."""
    is_code = callable(obj) or isinstance(obj, property)
    return False if skip and is_code and not name.startswith("_") else None


class ShortValues(DataDocumenter):
    """A constant, with its value only where that is plain and short."""

    priority = DataDocumenter.priority + 1

    def should_suppress_value_header(self) -> bool:
        short = isinstance(self.object, PLAIN) and len(repr(self.object)) <= SHOWN_VALUE
        return not short or super().should_suppress_value_header()


def read_own_sources_only() -> None:
    """Autodoc parses the module of every base class for comments: seconds, for the Trainer's."""
    for_module = ModuleAnalyzer.for_module

    def own(name: str) -> ModuleAnalyzer:
        if name.partition(".")[0] != "implicitprm":
            raise PycodeError(f"{name} is another package's")
        return for_module(name)

    ModuleAnalyzer.for_module = own  # type: ignore[method-assign]


def help_text(text: str, *before: nodes.Node) -> nodes.paragraph:
    """What a command says of itself, its code set as code."""
    paragraph = nodes.paragraph("", "", *before, nodes.Text(text))
    replace_matches(paragraph[-1], CODE, lambda code: nodes.literal("", code[1] or code[2]))
    return paragraph


class Commands(SphinxDirective):
    """A section for each command: what it does, and its options with their defaults."""

    def run(self) -> list[nodes.Node]:
        from typer.main import get_command

        from implicitprm.cli import app

        group = get_command(app)
        return [self.section(name, command) for name, command in group.commands.items()]

    def section(self, name: str, command: Any) -> nodes.section:
        section = nodes.section(ids=[f"implicitprm-{name}"], names=[name])
        section += nodes.title("", "", nodes.literal("", f"implicitprm {name}"))
        for paragraph in command.help.split("\n\n"):
            section += help_text(" ".join(paragraph.split()))
        options = nodes.bullet_list()
        for parameter in command.params:
            spelled = "/".join([*parameter.opts, *parameter.secondary_opts])
            text = parameter.help or ""
            if parameter.required:
                text += " (required)"
            elif parameter.default is not None and parameter.default is not False:
                text += f" (default: {parameter.default})"
            options += nodes.list_item("", help_text(f"  {text}", nodes.literal("", spelled)))
        section += options
        return section


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    read_own_sources_only()
    app.add_autodocumenter(ShortValues, override=True)
    app.add_directive("commands", Commands)
    app.connect("autodoc-process-docstring", name_the_chapter)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-skip-member", keep_code)
    app.connect("missing-reference", find_alias)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
