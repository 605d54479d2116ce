# Two commands are the whole set-up: `make run` and `make test`. Both create .venv and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := .venv-torch
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := setup.cfg pyproject.toml constraints.txt

.PHONY: run test test-torch bench bench-short lint clean

run: $(VENV)/.installed
	$(BIN)/slicesim run hwconfigs/mobile.yaml
	$(BIN)/slicesim compare hwconfigs/mobile.yaml --policies lru-high,lru-low,dbsc,slicemoe

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

# Live models: a second environment, since torch is large and nothing else needs it.
test-torch: $(TORCH)/.installed
	OMP_NUM_THREADS=1 $(TORCH)/bin/python -m pytest -n 2 tests/live tests/quality tests/micro tests/amat tests/checkpoint tests/cli/test_quality.py tests/docs/test_examples.py::test_live_command

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

$(TORCH)/.installed: $(SOURCES)
	test -x $(TORCH)/bin/python || $(PYTHON) -m venv $(TORCH)
	$(TORCH)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[capture,test]"
	touch $@

clean:
	rm -rf $(VENV) $(TORCH) results build dist *.egg-info
