# Two commands on a fresh machine with Python 3.10 to 3.13: `make fit` and `make test`.
# docs/testing.md explains the commands for tests.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What `make lowest` runs.
LOWEST := tests/test_*.py tests/datasets tests/demo tests/detect tests/evaluation tests/formats \
	tests/serve tests/web

# `make test COVERAGE=1` also measures which branches the tests take.
COVERAGE ?=
MEASURE := $(if $(COVERAGE),--cov --cov-report=)

.PHONY: fit test lint slow coverage nightly gpu lowest beam constraints docs clean

fit: $(VENV)/installed
	$(BIN)/python training/fit.py

# A process that dies is not replaced: its test fails by name. After a replacement, xdist may wait for ever.
test: $(VENV)/installed-dev lint
	$(BIN)/pytest -m "not slow and not nightly" --numprocesses 2 --dist loadfile --max-worker-restart 0 $(MEASURE)

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# In the order of the files: xdist would run files of one test last, and one of them trains for ten minutes.
slow: $(VENV)/installed-dev
	$(BIN)/pytest -m "slow and not nightly" --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# What the last `make test COVERAGE=1` measured.
coverage: $(VENV)/installed-dev
	$(BIN)/coverage report --fail-under 95

# Hours. It goes on after a failure, and fails in the end.
NIGHTLY := "pytest -m nightly" "python -m tests.fuzz.images --inputs 100000" \
	"python -m tests.fuzz.annotations --examples 20000" "python -m tests.fuzz.models --inputs 500" \
	"python -m training.benchmarks endurance" "python -m training.benchmarks long_training" \
	"python -m tests.mutation all"
nightly: $(VENV)/installed-dev
	@failed=; for each in $(NIGHTLY); do \
		echo "$$each"; PYTHONPATH=. $(BIN)/$$each || failed="$$failed; $$each"; \
	done; test -z "$$failed" || { echo "Failed$$failed"; exit 1; }

# Where there is a GPU: its tests, and the ratios of training and detecting with each precision and XLA. docs/performance.md
# says what they are. They are written to build/gpu/, as json and as one table.
MEASURED := $(BIN)/python -m training.benchmarks
gpu: $(VENV)/installed-dev
	mkdir -p build/gpu
	$(BIN)/pytest -m gpu
	$(MEASURED) train --side 320 --batch 16 --steps 20 --json build/gpu/train.json > build/gpu/table.md
	$(MEASURED) train --side 320 --batch 16 --steps 20 --precisions mixed_float16 --json build/gpu/float16.json >> build/gpu/table.md
	$(MEASURED) train --side 320 --batch 16 --steps 20 --precisions float32 --xla --json build/gpu/xla.json >> build/gpu/table.md
	$(MEASURED) detection faces --runtimes "TensorFlow, float32" "TensorFlow, bfloat16" --json build/gpu/faces.json >> build/gpu/table.md
	$(MEASURED) detection faces_light --runtimes "TensorFlow, float32" "TensorFlow, bfloat16" --json build/gpu/faces_light.json >> build/gpu/table.md
	@cat build/gpu/table.md

# The lowest versions that setup.cfg allows: tests of reading, detecting, exporting, judging and the page.
lowest: $(VENV)-lowest/installed
	$(VENV)-lowest/bin/python -m pytest -m "not slow and not nightly" --numprocesses 2 --dist loadfile --max-worker-restart 0 $(LOWEST)

# Tests of pipelines, with Apache Beam. It refuses some of the versions in constraints.txt, and takes the newest others.
beam: $(VENV)-beam/installed
	$(VENV)-beam/bin/python -m pytest -m "not nightly" tests/batch tests/packaging/test_metadata.py

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

$(VENV)-beam/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m venv $(VENV)-beam
	$(VENV)-beam/bin/python -m pip install --upgrade pip
	$(VENV)-beam/bin/python -m pip install --editable '.[dev,beam]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-beam
