# Every target sets up .venv first if it is missing or out of date.
# Variables: PYTHON, the interpreter of .venv; VENV, its folder.
# Output goes to runs/, which git ignores; only `keep` and `keep-bench` write files that
# are committed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL := 3

# All benchmarks, one after another, with the given arguments.
benchmarks = for name in speed fit export reservoir attention; do \
	$(BIN)/python benchmarks/$$name.py $(1) || exit 1; done

.PHONY: help demo demo-quick test test-all bench bench-quick lint format stubs docs
.PHONY: keep keep-bench clean

help:                  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

demo: $(VENV)/ready    ## tune, train, export and check a model on real speech
	$(BIN)/python examples/quickstart.py

demo-quick: $(VENV)/ready  ## the demo in a minute
	$(BIN)/python examples/quickstart.py --quick

test: $(VENV)/ready    ## run the tests
	$(BIN)/python -m pytest -n auto

test-all: $(VENV)/ready  ## run the slow tests too, and the tests with --as-used
	$(BIN)/python -m pytest -n auto -m "slow or not slow"
	$(BIN)/python -m pytest -n auto --as-used

bench: $(VENV)/ready   ## time layers, `fit`, exports, reservoirs and attention against peers
	$(call benchmarks)

bench-quick: $(VENV)/ready  ## the benchmarks in a few minutes
	$(call benchmarks,--quick)

lint: $(VENV)/ready    ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

format: $(VENV)/ready  ## fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

stubs: $(VENV)/ready   ## write the type stubs of layers and cells
	$(BIN)/python tools/make_stubs.py

docs: $(VENV)/ready    ## build the documentation into site/, and run the code of its guides
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

keep: $(VENV)/ready    ## regenerate saved_models/ and what the docs show of it
	$(BIN)/python tools/fill_docs.py

keep-bench: $(VENV)/ready  ## regenerate benchmarks/results/ and the tables in the docs
	$(call benchmarks,--out benchmarks/results)
	$(BIN)/python tools/fill_docs.py --results

clean:                 ## remove .venv and what tests and builds leave, but not runs/
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache build dist site *.egg-info

$(VENV)/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,test,docs]'
	touch $@
