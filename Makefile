# kbdenoise: `make` lists the targets, `make demo` shows what it does, `make test` checks it.
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test test-kaggle check types pytest lint format bench bench-models clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 15

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable '.[dev]'
	touch $@

demo: $(VENV)/installed  ## the whole way on the demo contest: fetch, train, evaluate, submit
	$(BIN)/kbdenoise fetch demo
	$(BIN)/kbdenoise inspect demo
	$(BIN)/kbdenoise train demo --preset quick
	$(BIN)/kbdenoise predict last
	$(BIN)/kbdenoise submit last --message "make demo"
	$(BIN)/kbdenoise evaluate last --baselines

test: check  ## everything that must hold before a commit; the same as check

check: $(VENV)/installed-dev  ## format, lint, layers, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory --jobs 2 types pytest

types: $(VENV)/installed-dev
	$(BIN)/mypy

# Half of the tests to each process, in their order, so that what a file sets up is set up once;
# who has done takes of the other's.
pytest: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Each version of the client in an environment of its own, over the packages of the main one.
test-kaggle: $(VENV)/installed-dev  ## the tests of fetch and submit with kaggle 2.2.4 and 2.2.5 in turn
	@for version in 2.2.4 2.2.5; do \
	  place=$(VENV)-kaggle-$$version; \
	  test -x $$place/bin/python || $(BIN)/python -m venv $$place || exit 1; \
	  $(BIN)/python -c 'import site; print(site.getsitepackages()[0])' \
	    > $$($$place/bin/python -c 'import site; print(site.getsitepackages()[0])')/main.pth; \
	  $$place/bin/python -m pip install --quiet --disable-pip-version-check \
	    --ignore-installed "kaggle==$$version" six || exit 1; \
	  echo "kaggle $$version:"; \
	  $$place/bin/python -c "import importlib.metadata as m; assert m.version('kaggle') == '$$version'" || exit 1; \
	  $$place/bin/python -m pytest -q -p no:cacheprovider -n 2 --dist worksteal -m kaggle tests || exit 1; \
	done

lint: $(VENV)/installed-dev  ## lint, layers and types, without the tests
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/installed-dev  ## format the code and sort its imports
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-dev  ## measure what README claims; results go to benchmarks/results/
	$(BIN)/python -m benchmarks.pipeline

bench-models: $(VENV)/installed-dev  ## README's table of models, about an hour; DOCUMENTS=FOLDER adds that contest
	$(BIN)/python -m benchmarks.models $(if $(DOCUMENTS),--documents $(DOCUMENTS))

clean:  ## remove the environment and what tools left behind
	rm -rf $(VENV) $(VENV)-kaggle-* build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
