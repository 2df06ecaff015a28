# `make` alone lists the verbs: the lines below that have a ## after their name.

PYTHON ?= python3
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help demo test lint format types check bench bench-quick redis clean

help: ## list the verbs
	@echo "edgeproxy: make VERB"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: $(INSTALLED) ## run a small shop with the edge in front of it, and print what to try
	@$(BIN)/edgeproxy demo

test: $(INSTALLED_DEV) redis ## run the tests (JOBS=2 at a time)
	$(BIN)/pytest -n $(JOBS)

lint: $(INSTALLED_DEV) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED_DEV) ## put the code into the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

types: $(INSTALLED_DEV) ## check the types (mypy --strict)
	$(BIN)/mypy

check: lint types test ## all that a change must pass

bench: $(INSTALLED) ## measure against nginx on this machine: table, and JSON in bench/results/
	$(BIN)/python -m bench

bench-quick: $(INSTALLED) ## the same in under a minute: good for a smoke test, not for figures
	$(BIN)/python -m bench --quick

clean: ## remove the environment, caches and results
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info bench/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make the set-up run once, and again when pyproject.toml has changed.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "edgeproxy needs Python 3.11 or newer, and $(PYTHON) is" \
	    "$$($(PYTHON) --version 2>&1 || echo not there). Name another one: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "no virtual environment could be made; Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; }

$(INSTALLED): pyproject.toml | $(BIN)/python
	@echo "installing edgeproxy into $(VENV)"
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(INSTALLED_DEV): pyproject.toml | $(BIN)/python
	@echo "installing edgeproxy and its development tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(INSTALLED)

redis:
	@if command -v redis-server >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing redis-server, which some tests run"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends redis-server >/dev/null; } \
	    || echo "redis-server could not be installed"; \
	fi; \
	command -v redis-server >/dev/null \
	  || echo "left out: the tests of the redis:// store, for want of redis-server"
