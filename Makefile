# Everything that a developer or a build machine needs. A fresh machine has to bring make and Python 3.11
# or later, and nothing else: the targets make a virtual environment in .venv and install into it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
# pip's progress is for people: where output goes to a file or a log, it keeps quiet.
PIP := $(BIN)/python -m pip install --disable-pip-version-check $(if $(MAKE_TERMOUT),,--quiet)
# Without a terminal, lines are 80 wide and break; a log can take more.
WIDE := $(if $(MAKE_TERMOUT),,COLUMNS=160)

.DEFAULT_GOAL := help
.PHONY: help demo test lint format docs clean

help:
	@echo "make demo     the whole way on scikit-learn's digits; the report is $(DEMO)/report.html"
	@echo "make test     everything that is checked: ruff, mypy, the tests and the doctests"
	@echo "make lint     ruff and mypy alone"
	@echo "make format   let ruff mend what it can"
	@echo "make docs     build the documentation into site/; a broken link is an error"
	@echo "make clean    remove what these targets made, except $(VENV)"
	@echo
	@echo "PYTHON=python3.12 chooses the interpreter that $(VENV) is made with."

demo: $(VENV)/.installed-export
	@rm -rf $(DEMO)
	$(WIDE) $(BIN)/lauter demo --out $(DEMO)

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(DEMO) site dist build .mypy_cache .ruff_cache .pytest_cache
	find src tests benchmarks docs -name __pycache__ -prune -exec rm -rf {} +

# One stamp per set of extras: installed once, and again when pyproject.toml is newer.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	@echo "installing lauter[$*] and its libraries into $(VENV); the first time takes some minutes"
	$(PIP) --editable '.[$*]'
	@touch $@

# The developer's set holds the demo's: after a test, the demo has nothing to install.
$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing lauter[dev] and its libraries into $(VENV); the first time takes some minutes"
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.installed-export

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "there is no $(PYTHON) here; install Python 3.11 or later, or name one: make PYTHON=python3.12" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), lauter needs 3.11 or later; name one: make PYTHON=python3.12" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
