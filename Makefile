# Two commands on a fresh machine with Python 3.10 to 3.13: `make fit` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOWEST := tests/test_*.py tests/cli tests/datasets tests/demo tests/detect tests/formats tests/network

.PHONY: fit test lint slow lowest constraints docs clean

fit: $(VENV)/installed
	$(BIN)/python training/fit.py

# A process that dies is not replaced: its test fails by name. After a replacement, xdist may wait for ever.
test: $(VENV)/installed-dev lint
	$(BIN)/pytest -m "not slow" --numprocesses 2 --dist loadfile --max-worker-restart 0

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: $(VENV)/installed-dev
	$(BIN)/pytest -m slow

# The lowest versions that setup.cfg allows: tests of reading, detecting, exporting, judging and the page.
lowest: $(VENV)-lowest/installed
	$(VENV)-lowest/bin/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile --max-worker-restart 0 $(LOWEST)

# Which versions are tested, after setup.cfg was changed or to take newer ones. It asks each of these Pythons.
PYTHONS ?= python3.10 python3.11 python3.12 python3.13
constraints: $(VENV)/installed-dev
	$(BIN)/python -m tests.packaging.constraints lowest
	$(BIN)/python -m tests.packaging.constraints newest $(PYTHONS)

docs: $(VENV)/installed-dev
	$(BIN)/python docs/reference/make.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 10) <= v <= (3, 13))' || \
		{ echo "Expected Python 3.10 to 3.13 as '$(PYTHON)'; found $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[plots]'
	touch $@

$(VENV)/installed-dev: setup.cfg pyproject.toml constraints.txt | $(VENV)/installed
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

$(VENV)-lowest/installed: setup.cfg pyproject.toml constraints-lowest.txt | $(VENV)/bin/python
	$(BIN)/python -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --upgrade pip
	$(VENV)-lowest/bin/python -m pip install --constraint constraints-lowest.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-lowest
