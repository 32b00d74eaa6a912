# Two commands for a fresh machine: `make demo` and `make test`. Each sets up .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The stamp is newer than pyproject.toml when what it names is installed.
STAMP := $(VENV)/.installed

.PHONY: demo test lint docs setup clean

demo: setup
	$(BIN)/compress demo -o demo

test: setup lint
	$(BIN)/pytest -n logical --maxprocesses 8 --dist worksteal --durations 20

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Warnings are errors; what the theme says about its successor is none of the site's.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

setup: $(STAMP)

$(STAMP): pyproject.toml
	@echo "setting up $(VENV): torch and its CUDA libraries are some 5 GB, which takes a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo site
