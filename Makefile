# Every target makes the environment it needs: `make demo` works in a fresh clone.
PYTHON ?= python3
# Processes that test at the same time.
JOBS ?= 2
BIN := .venv/bin

export PYTHONDONTWRITEBYTECODE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test check docs clean

help: ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

install: .venv/.stamp ## make .venv with the tested versions

.venv/.stamp: pyproject.toml constraints.txt
	@echo "install: .venv, with the versions of constraints.txt (a few minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@

demo: install ## pre-train and evaluate on the built-in scenes: no download, no GPU
	@$(BIN)/python -m onestage.demo

test: install ## the tests: offline, on the CPU, in JOBS single-threaded processes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

check: install ## style, layers and types
	@echo "check: ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@echo "check: import-linter"
	@PYTHONPATH=src $(BIN)/lint-imports --no-logo --no-cache >.venv/layers.txt || { cat .venv/layers.txt; exit 1; }
	@echo "check: basedpyright"
	@$(BIN)/basedpyright --pythonpath $(BIN)/python

docs: install ## the generated pages of docs/
	@$(BIN)/python docs/build.py

clean: ## remove the environment and every cache
	rm -rf .venv build dist site .pytest_cache .ruff_cache .import_linter_cache
	find src tests docs -name __pycache__ -type d -prune -exec rm -rf {} +
