# Two commands on a fresh machine with Python 3.10 to 3.13: `make fit` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: fit test lint slow docs clean

fit: $(VENV)/installed
	$(BIN)/python training/fit.py

# A process that dies is not replaced: its test fails by name. After a replacement, xdist may wait for ever.
test: $(VENV)/installed-dev lint
	$(BIN)/pytest -m "not slow and not nightly" --numprocesses 2 --dist loadfile --max-worker-restart 0

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: $(VENV)/installed-dev
	$(BIN)/pytest -m "slow and not nightly"

docs: $(VENV)/installed-dev
	$(BIN)/python docs/reference/make.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 10) <= v <= (3, 13))' || \
		{ echo "Expected Python 3.10 to 3.13 as '$(PYTHON)'; found $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install --editable '.[plots]'
	touch $@

$(VENV)/installed-dev: setup.cfg pyproject.toml | $(VENV)/installed
	$(BIN)/python -m pip install --editable '.[dev,docs]'
	touch $@

clean:
	rm -rf $(VENV)
