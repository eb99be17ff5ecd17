# `make demo` and `make test` work on a fresh clone: each sets up the virtual environment it needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slow lint clean

$(VENV)/core.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "mpfnl needs Python 3.11 to 3.13; run  make PYTHON=/path/to/python  $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing (PyTorch and its libraries: several GB, a few minutes)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[segment]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/core.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Waiting threads sleep: much faster where the machine has something else to do.
demo: $(VENV)/core.stamp ## phantoms, training, enhancement, segmentation, the report, in demo/
	OMP_WAIT_POLICY=PASSIVE $(BIN)/mpfnl demo --output demo

test: lint ## style, types, layers and the tests that need no GPU, but for the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not gpu and not slow"

test-slow: $(VENV)/dev.stamp ## the real segmenter, notebooks, the demonstration, several processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "slow and not gpu"

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
