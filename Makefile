# `make` alone lists the verbs: the lines below that have a ## after their name.

RECENT := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$name -c '$(RECENT)' 2>/dev/null && echo $$name && break; done)
JOBS ?= 4

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_FUZZ := $(VENV)/.installed-fuzz

# Installs a package where that can be done without asking: as root, with apt-get.
apt_install = { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "installing $(1)" \
  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends $(1) >/dev/null; }

.DEFAULT_GOAL := help
.PHONY: help demo test lint format types check docs bench bench-quick bench-purging bench-footprint bench-overload fuzz soak redis clean

help: ## list the verbs
	@echo "edgeproxy: make VERB"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## run a small shop with the edge in front of it, and print what to try
	@$(BIN)/edgeproxy demo

test: $(INSTALLED_DEV) redis ## run the tests (JOBS=4 at a time)
	$(BIN)/pytest -n $(JOBS) --dist worksteal

lint: $(INSTALLED_DEV) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED_DEV) ## put the code into the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

types: $(INSTALLED_DEV) ## check the types (mypy --strict)
	$(BIN)/mypy edgeproxy bench

check: lint types test ## all that a change must pass

docs: $(INSTALLED) ## write the reference of all settings into docs/configuration.md
	$(BIN)/python -m edgeproxy.config.reference docs/configuration.md

bench: $(INSTALLED) ## measure against nginx, Varnish and others: a table, and JSON in bench/results/
	$(BIN)/python -m bench

bench-quick: $(INSTALLED) ## the same in under a minute, beside nginx: a smoke test, not for figures
	$(BIN)/python -m bench --quick

bench-purging: $(INSTALLED) ## measure what a purge of a million responses costs, and who notices
	$(BIN)/python -m bench.purging

bench-footprint: $(INSTALLED) ## measure what an edge takes that has a million responses stored
	$(BIN)/python -m bench.footprint

bench-overload: $(INSTALLED) ## measure what is left of the hits while far too much else is asked for
	$(BIN)/python -m bench.overload

fuzz: $(INSTALLED_FUZZ) ## look for inputs that break a parser's promise (SECONDS=60 for all of them)
	$(BIN)/python -m fuzz --seconds $(or $(SECONDS),60) --jobs $(JOBS)

soak: $(INSTALLED_DEV) ## kill processes at random under load and look for damage (SECONDS=300)
	SOAK_SECONDS=$(or $(SECONDS),300) $(BIN)/pytest --timeout 0 tests/soak

clean: ## remove the environment, caches and results
	rm -rf $(VENV) fuzz/found .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info bench/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make the set-up run once, and again when pyproject.toml or what is compiled has changed.

$(BIN)/python:
	@test -n '$(PYTHON)' && $(PYTHON) -c '$(RECENT)' || { \
	  echo "edgeproxy needs Python 3.11 or newer; if it has another name than python3," \
	    "give it: make PYTHON=/opt/python/bin/python3" >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); $(call apt_install,python3-venv) && $(PYTHON) -m venv $(VENV); } \
	  || { rm -rf $(VENV); \
	    echo "no virtual environment could be made; Debian, Ubuntu: apt-get install python3-venv" >&2; \
	    exit 1; }

$(INSTALLED): pyproject.toml edgeproxy/proxy/_scan.c | $(BIN)/python
	@echo "installing edgeproxy into $(VENV)"
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(INSTALLED_DEV): pyproject.toml edgeproxy/proxy/_scan.c | $(BIN)/python
	@echo "installing edgeproxy and its development tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(INSTALLED)

# What its tests' edge is built of is in the development tools.
$(INSTALLED_FUZZ): pyproject.toml $(INSTALLED_DEV)
	@echo "installing the fuzzer into $(VENV)"
	@$(BIN)/python -m pip install --quiet --editable '.[fuzz]' \
	  || { echo "atheris can't be installed: no fuzzing without it" >&2; exit 1; }
	@touch $@

redis:
	@command -v redis-server >/dev/null || $(call apt_install,redis-server) \
	  || echo "left out: the tests of the redis:// store, for want of redis-server"
