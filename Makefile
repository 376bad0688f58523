# Every target makes what it needs: `make demo` on a fresh machine sets up .venv first.
# What may be set: PYTHON, the interpreter of .venv; VENV, its folder.
# What is run goes to runs/, which git does not look at; only `keep` and `keep-bench`
# write what is kept.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL := 3

# All benchmarks, one after the other, with the arguments given.
benchmarks = for name in speed fit export reservoir attention; do \
	$(BIN)/python benchmarks/$$name.py $(1) || exit 1; done

.PHONY: help demo demo-quick test test-all bench bench-quick lint format stubs docs
.PHONY: keep keep-bench clean

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
	$(BIN)/python -m pytest -n auto --as-used

bench: $(VENV)/ready   ## time layers, `fit`, files, reservoirs and attention against their peers
	$(call benchmarks)

bench-quick: $(VENV)/ready  ## the same in some minutes
	$(call benchmarks,--quick)

lint: $(VENV)/ready    ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

format: $(VENV)/ready  ## mend style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

stubs: $(VENV)/ready   ## write the type stubs of layers and cells
	$(BIN)/python tools/make_stubs.py

docs: $(VENV)/ready    ## build the documentation into site/, and run the code of its guides
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

keep: $(VENV)/ready    ## make anew what saved_models/ holds and the docs show
	$(BIN)/python tools/fill_docs.py

keep-bench: $(VENV)/ready  ## make anew benchmarks/results/ and the tables of the docs
	$(call benchmarks,--out benchmarks/results)
	$(BIN)/python tools/fill_docs.py --results

clean:                 ## remove .venv and what tests and builds leave, but not runs/
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache build dist site *.egg-info

$(VENV)/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all,test,docs]'
	touch $@
