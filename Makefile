# Everything is set up by the target that needs it, into .venv, from Python >= 3.11 and make alone.
# Stamp files make the second call quick; they are older than pyproject.toml when dependencies change.

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that is new enough and can make environments; `make PYTHON=... test` overrides.
PROBE := import sys, ensurepip, venv; raise SystemExit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$python -c '$(PROBE)' >/dev/null 2>&1 && { echo $$python; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest
# A file of tests stays in one process: what it compiles is compiled once.
WORKERS := -n auto --maxprocesses 4 --dist loadfile

.PHONY: help demo test test-all test-gpu fuzz check format docs bench bench-quick clean

help:  ## what the targets are
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: $(VENV)/.demo  ## partition the variance of 4,147 real genes
	$(BIN)/jaxvp demo

test: $(VENV)/.test  ## the quick tests
	$(PYTEST) $(WORKERS)

test-all: $(VENV)/.test-all  ## the slow tests too, and the code blocks and the build of the docs
	$(PYTEST) $(WORKERS) -m ""

test-gpu: $(VENV)/.test  ## the tests that need a GPU (install .[cuda12] or .[cuda13] first)
	JAX_PLATFORMS=cuda,cpu $(PYTEST) -m gpu

fuzz: $(VENV)/.test  ## the property tests with many more examples, other ones each time
	@echo "fuzz: 2,000 hostile calls (tests/test_hostile.py), 1,000 examples of every other property"
	@# A property is one test of an hour; each of its calls has a time limit of its own.
	$(PYTEST) -m hypothesis --hypothesis-profile=fuzz -o faulthandler_timeout=0

check: $(VENV)/.check  ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.check  ## what `check` asks for, done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs  ## build the documentation into docs/_build/html; its notebooks run
	$(BIN)/python -m sphinx -W --keep-going -j auto -b html docs docs/_build/html

bench: $(VENV)/.test  ## the committed benchmarks: takes long, wants a quiet machine
	$(BIN)/python -m benchmarks

bench-quick: $(VENV)/.test  ## the same on a small scale, to see that it runs
	$(BIN)/python -m benchmarks --quick

clean:  ## forget the environment and caches
	rm -rf $(VENV) build dist docs/_build .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "jaxvp needs Python >= 3.11 with venv (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(PIP) install -e .
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[test,bench]'
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[docs]'
	@touch $@ $(VENV)/.demo

$(VENV)/.test-all: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[test,bench,docs]'
	@# An environment of its own, since it brings versions of other packages; its test is skipped without.
	@$(PYTHON) -m venv $(VENV)/snakemake && \
		$(VENV)/snakemake/bin/python -m pip --disable-pip-version-check --quiet install 'snakemake>=9' || \
		echo "snakemake could not be installed: the test of its page will be skipped"
	@touch $@ $(VENV)/.test $(VENV)/.docs $(VENV)/.demo

$(VENV)/.check: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[test,bench,dev]'
	@touch $@ $(VENV)/.test $(VENV)/.demo
