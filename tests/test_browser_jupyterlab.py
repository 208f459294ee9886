"""The figures with sliders and the live forms in JupyterLab, in a browser."""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from browsing import CONTRAST, desktop_page, explorers
from nbformat.v4 import new_code_cell, new_notebook, new_output
from playwright.sync_api import Browser, Error, Page, expect
from transformers import AutoModelForCausalLM, AutoTokenizer

from implicitprm import ImplicitPRM
from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path
from implicitprm.live import judge

pytestmark = [pytest.mark.browser, pytest.mark.slow]


PROBLEM, SOLUTION = "7+5-3", "7+5=13 13-3=10 #10"


def load_judges() -> dict[str, ImplicitPRM]:
    """Two reward models; the notebook has this function's text, and loads the same."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path())
    reasoner = AutoModelForCausalLM.from_pretrained(checkpoint_path()).eval()
    found = {}
    for name in ("strong", "early"):
        model = AutoModelForCausalLM.from_pretrained(checkpoint_path(name)).eval()
        found[name] = ImplicitPRM(model, reasoner, tokenizer, 0.5, ARITHMETIC_FORMAT)
    return found


FORM = f"""from transformers import AutoModelForCausalLM, AutoTokenizer
from implicitprm import ImplicitPRM
from implicitprm.arithmetic import ARITHMETIC_FORMAT, checkpoint_path
from implicitprm.live import score_your_own

{inspect.getsource(load_judges)}
score_your_own(load_judges(), {PROBLEM!r}, {SOLUTION!r})"""


def write_notebooks(folder: Path) -> None:
    """One with the stored figures of the chapters, one with a form that is not yet run."""
    figures = [
        new_output("display_data", data={"text/html": html}) for _, html in explorers().values()
    ]
    for name, cell in (
        ("figures", new_code_cell("figures", outputs=figures, execution_count=1)),
        ("form", new_code_cell(FORM)),
    ):
        notebook = new_notebook(cells=[cell])
        # Or JupyterLab asks for a kernel first.
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[str]:
    """The address of the notebooks in a JupyterLab with settings of its own."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = os.environ | {home: str(folder / home) for home in homes}
    write_notebooks(folder)
    jupyter = [sys.executable, "-m", "jupyter"]
    subprocess.run([*jupyter, "trust", "figures.ipynb"], cwd=folder, env=environment, check=True)
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    options += ["--IdentityProvider.token=figures", "--LabApp.expose_app_in_browser=True"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*jupyter, "lab", *options], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            yield f"http://127.0.0.1:{port}/lab/tree/{{}}.ipynb?token=figures"
        finally:
            server.kill()  # asked to stop, it can wait for a page that a failed test left open
            server.wait()


def open_lab(browser: Browser, address: str, patience: float = 120) -> Page:
    """A page with a notebook in JupyterLab, once the server answers."""
    page = desktop_page(browser)
    page.set_default_timeout(60_000)
    deadline = time.monotonic() + patience
    while True:
        try:
            page.goto(address)
            break
        except Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    return page


def test_in_jupyterlab_a_solution_of_ones_own_is_scored(browser: Browser, lab: str) -> None:
    judges = load_judges()
    page = open_lab(browser, lab.format("form"))
    page.wait_for_function("jupyterapp.shell.currentWidget?.sessionContext?.isReady")
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    table = page.locator(".widget-html-content pre")
    expect(table).to_have_text(judge(judges["strong"], PROBLEM, SOLUTION))
    problem, solution = page.locator(".widget-text input").all()
    assert (problem.input_value(), solution.input_value()) == (PROBLEM, SOLUTION)
    solution.fill("7+5=12 12-3=9 #9")
    solution.press("Enter")
    expect(table).to_have_text(judge(judges["strong"], PROBLEM, "7+5=12 12-3=9 #9"))
    page.locator(".widget-dropdown select").select_option("early")
    expect(table).to_have_text(judge(judges["early"], PROBLEM, "7+5=12 12-3=9 #9"))
    solution.fill("7+5")
    solution.press("Enter")
    expect(table).to_contain_text("Not scored: step 0, '7+5', cannot be read")
    page.close()


def test_in_jupyterlab_the_keys_move_the_sliders_and_both_themes_suit(
    browser: Browser, lab: str
) -> None:
    page = open_lab(browser, lab.format("figures"))
    page.wait_for_selector(".implicitprm-figure [data-ready]")
    for name in explorers():
        figure = page.locator(f"#{name}")
        slider = figure.locator("input").first
        before = slider.input_value()
        reading = figure.locator("[data-reading]").inner_text()
        slider.press("ArrowRight")
        assert slider.input_value() == str(int(before) + 1)
        assert figure.locator("[data-reading]").inner_text() != reading
    papers = set()
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        change = "name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
        page.evaluate(change, theme)
        light = str(theme == "JupyterLab Light").lower()
        page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")
        for name in explorers():
            root = f"document.getElementById('{name}')"
            papers.add(page.evaluate(f"getComputedStyle({root}).backgroundColor"))
            walk = CONTRAST.replace("createTreeWalker(document.body", f"createTreeWalker({root}")
            assert page.evaluate(walk) == []
    assert len(papers) == 2
    page.close()
