# The two commands a newcomer needs: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv demo test test-long lint

venv: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: venv  ## four phantom hospitals, under 3 minutes on 2 cores; prints where the report is
	$(BIN)/fedsim run workloads/quickstart.yaml

test: venv  ## the default tests, under 12 minutes on 2 cores
	$(BIN)/python -m pytest -m 'not long'

test-long: venv  ## the tests that take minutes each
	$(BIN)/python -m pytest -m long

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
