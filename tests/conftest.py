"""What every test runs under: no hub, one thread, no progress bars; who is skipped, and why.

And what tests of several files share: the real data sets, the book, a browser.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Read when their libraries are imported, and inherited by the kernels that run the chapters.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import pytest
import torch
from book_build import Book, build_once
from browsing import open_browser
from playwright.sync_api import Browser

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "data_dir" in getattr(item, "fixturenames", ()):
            item.add_marker("data")
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; torch finds none"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the real data sets."""
    folder = os.environ.get("IMPLICITPRM_DATA")
    if not folder:
        pytest.skip("IMPLICITPRM_DATA is unset: it names the folder of the real data sets")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"IMPLICITPRM_DATA names no folder: {folder}")
    return path


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    """The book of the repository, built once for all workers of a run."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    (folder / "book").mkdir(exist_ok=True)
    return build_once(folder / "book")


@pytest.fixture(scope="session")
def site(book: Book) -> Path:
    """The folder of the book's pages."""
    return book.pages


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser
