# Two commands are the whole set-up: `make run` and `make test`. Both create .venv and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := setup.cfg pyproject.toml constraints.txt

.PHONY: run test bench bench-short lint clean

run: $(VENV)/.installed
	$(BIN)/slicesim run hwconfigs/mobile.yaml
	$(BIN)/slicesim compare hwconfigs/mobile.yaml --policies lru-high,lru-low,dbsc,slicemoe

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

bench: $(VENV)/.installed-bench
	$(BIN)/python experiments/bench.py

bench-short: $(VENV)/.installed-bench
	$(BIN)/python experiments/bench.py --short

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-test: $(SOURCES) | $(BIN)/python
	$(INSTALL) --editable ".[test]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: $(SOURCES) | $(BIN)/python
	$(INSTALL) --editable ".[bench]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(SOURCES) | $(BIN)/python
	$(INSTALL) --editable ".[dev]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) results build dist *.egg-info
