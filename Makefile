# A fresh machine needs Python 3.11 or newer and make; everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Twice quiet: warnings about unused package indexes are dropped, errors are shown.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-warn-conflicts -c constraints.txt

# One stamp file per set of dependencies; a set is installed again only when these files change.
RUNTIME := $(VENV)/.runtime
DEVELOPMENT := $(VENV)/.development
DOCUMENTATION := $(VENV)/.documentation
PINS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format docs bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

demo: $(RUNTIME) ## verify and falsify small trained networks, and draw a counterexample
	@$(BIN)/python examples/demo.py

test: $(DEVELOPMENT) ## run the tests, but for the slow ones
	@$(BIN)/python -m pytest -q -n 2 -m "not slow"

test-all: $(DEVELOPMENT) ## run every test, with many more random examples
	@HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest -q -n 2

lint: $(DEVELOPMENT) ## check style, types and the direction of imports
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --check --quiet . || { echo "some files are not formatted: make format"; exit 1; }
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports --no-logo

format: $(DEVELOPMENT) ## format the code and mend what can be mended without thought
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

docs: $(DOCUMENTATION) ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "built site/index.html"

bench: $(DEVELOPMENT) ## measure bounds and speed beside auto_LiRPA
	@$(BIN)/python -m benchmarks

clean: ## remove the environment, the caches and what was built
	@rm -rf $(VENV) build dist site out .pytest_cache .hypothesis .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "verifier needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(RUNTIME): $(PINS) | $(BIN)/python
	@echo "Installing verifier and its pinned dependencies into $(VENV) (once; a minute or a few)"
	@$(INSTALL) -e .
	@touch $@

# auto_LiRPA 0.3 declares pins that no longer resolve, hence --no-deps, and --no-warn-conflicts above.
$(DEVELOPMENT): $(RUNTIME)
	@echo "Installing the tools for tests and checks into $(VENV) (once)"
	@$(INSTALL) -e ".[dev,reference,train]"
	@$(INSTALL) --no-deps auto_LiRPA==0.3
	@touch $@

$(DOCUMENTATION): $(RUNTIME)
	@echo "Installing the documentation tools into $(VENV) (once)"
	@$(INSTALL) -e ".[docs]"
	@touch $@
