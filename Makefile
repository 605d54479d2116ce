# Two commands are the whole set-up: `make run` and `make test`. Both create .venv and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := .venv-torch
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := setup.cfg pyproject.toml constraints.txt

.PHONY: run test test-torch bench bench-short figures docs release lint clean

run: $(VENV)/.installed
	$(BIN)/slicesim run hwconfigs/mobile.yaml
	$(BIN)/slicesim compare hwconfigs/mobile.yaml --policies lru-high,lru-low,dbsc,slicemoe

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

# Live models: a second environment, since torch is large and nothing else needs it.
test-torch: $(TORCH)/.installed
	OMP_NUM_THREADS=1 $(TORCH)/bin/python -m pytest -n 2 tests/live tests/quality tests/micro tests/amat tests/checkpoint tests/kills/test_capture.py tests/cli/test_quality.py tests/docs/test_examples.py::test_live_commands

bench: $(VENV)/.installed-bench
	$(BIN)/python experiments/bench.py

bench-short: $(VENV)/.installed-bench
	$(BIN)/python experiments/bench.py --short

# The figures of the paper and beyond, from twins; REAL=FOLDER of recorded traces adds real routing.
figures: $(VENV)/.installed
	$(BIN)/python experiments/figures/all.py $(if $(REAL),--real $(REAL))

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

# sdist and wheel, installed in clean environments of every Python that is here: the same results, byte for byte.
release: $(VENV)/.installed-dev
	$(BIN)/python .ci/release.py

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

$(VENV)/.installed-docs: $(SOURCES) | $(BIN)/python
	$(INSTALL) --editable ".[docs]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(SOURCES) | $(BIN)/python
	$(INSTALL) --editable ".[dev]"
	touch $@ $(VENV)/.installed

$(TORCH)/.installed: $(SOURCES)
	test -x $(TORCH)/bin/python || $(PYTHON) -m venv $(TORCH)
	$(TORCH)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[capture,test]"
	touch $@

clean:
	rm -rf $(VENV) $(TORCH) results site build dist *.egg-info
