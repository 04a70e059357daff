# The two commands a newcomer needs: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder

.PHONY: venv demo test test-quick test-long lint docs docs-serve

venv: .venv/.ready

.venv/.ready: pyproject.toml setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: venv  ## four phantom hospitals, under 3 minutes on 2 cores; prints where the report is
	$(BIN)/fedsim run workloads/quickstart.yaml

test: venv  ## the default tests, about 12 minutes on 2 cores; one worker waits for Ray while another computes
	$(PARALLEL) -m 'not long' --durations=20

test-quick: venv  ## the inner loop, about a minute and a half on 2 cores: no Ray, nothing slow
	$(PARALLEL) -m 'not long and not ray and not slow'

test-long: venv  ## the tests that take minutes each
	$(BIN)/python -m pytest -m long

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs docs-serve: export NO_MKDOCS_2_WARNING = 1

docs: venv  ## the documentation as a site, in site/index.html; a dead link is an error
	$(BIN)/python -m mkdocs --quiet build --strict

docs-serve: venv  ## the site on http://127.0.0.1:8000, built anew when a page changes
	$(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:8000
