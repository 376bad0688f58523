# Every target makes what it needs: `make demo` on a fresh machine sets up .venv first.
# What may be set: PYTHON, the interpreter of .venv; VENV, its folder.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL := 3

.PHONY: help demo demo-quick test test-all bench bench-quick lint format readme clean

help:                  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

demo: $(VENV)/ready    ## tune, train, export and check a model on real speech
	$(BIN)/python examples/quickstart.py

demo-quick: $(VENV)/ready  ## the same in a minute
	$(BIN)/python examples/quickstart.py --quick

test: $(VENV)/ready    ## run the tests
	$(BIN)/python -m pytest -n auto

test-all: $(VENV)/ready  ## run the slow tests too
	$(BIN)/python -m pytest -n auto -m "slow or not slow"

bench: $(VENV)/ready   ## time layers, `fit`, files, reservoirs and attention against their peers
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/fit.py
	$(BIN)/python benchmarks/export.py
	$(BIN)/python benchmarks/reservoir.py
	$(BIN)/python benchmarks/attention.py

bench-quick: $(VENV)/ready  ## the same in some minutes
	$(BIN)/python benchmarks/speed.py --quick
	$(BIN)/python benchmarks/fit.py --quick
	$(BIN)/python benchmarks/export.py --quick
	$(BIN)/python benchmarks/reservoir.py --quick
	$(BIN)/python benchmarks/attention.py --quick

lint: $(VENV)/ready    ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/ready  ## mend style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

readme: $(VENV)/ready  ## run what the README shows and fill in what it prints
	$(BIN)/python tools/fill_readme.py

clean:                 ## remove .venv and what tests and builds leave
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist *.egg-info

$(VENV)/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,test]'
	touch $@
