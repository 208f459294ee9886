"""The figures with sliders and the live forms in JupyterLab, in a browser."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import nbformat
import pytest
from browsing import CONTRAST, desktop_page, explorers
from nbformat.v4 import new_code_cell, new_notebook, new_output
from playwright.sync_api import Browser, Error, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[str]:
    """The address of a JupyterLab, with settings of its own, on a notebook of the figures."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = os.environ | {home: str(folder / home) for home in homes}
    outputs = [
        new_output("display_data", data={"text/html": html}) for _, html in explorers().values()
    ]
    notebook = new_notebook(cells=[new_code_cell("figures", outputs=outputs, execution_count=1)])
    # Or JupyterLab asks for a kernel first.
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "figures.ipynb")
    jupyter = [sys.executable, "-m", "jupyter"]
    subprocess.run([*jupyter, "trust", "figures.ipynb"], cwd=folder, env=environment, check=True)
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    options += ["--IdentityProvider.token=figures", "--LabApp.expose_app_in_browser=True"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*jupyter, "lab", *options], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            yield f"http://127.0.0.1:{port}/lab/tree/figures.ipynb?token=figures"
        finally:
            server.kill()  # asked to stop, it can wait for a page that a failed test left open
            server.wait()


def open_lab(browser: Browser, address: str, patience: float = 120) -> Page:
    """A page with the notebook in JupyterLab, once the server answers."""
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
    page.wait_for_selector(".implicitprm-figure [data-ready]")
    return page


def test_in_jupyterlab_the_keys_move_the_sliders_and_both_themes_suit(
    browser: Browser, lab: str
) -> None:
    page = open_lab(browser, lab)
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
