# `make demo` and `make test` work on a fresh clone: each sets up the virtual environment it needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slow docs package lint clean

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

$(VENV)/docs.stamp: $(VENV)/core.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

# Waiting threads sleep: much faster where the machine has something else to do.
# make demo FINE_TUNE=1 begins with the weights that ship.
demo: $(VENV)/core.stamp ## phantoms, training, enhancement, segmentation, the report, in demo/
	OMP_WAIT_POLICY=PASSIVE $(BIN)/mpfnl demo --output demo $(if $(FINE_TUNE),--fine-tune)

test: lint ## style, types, layers and the tests that need no GPU, but for the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not gpu and not slow"

test-slow: $(VENV)/dev.stamp ## the real segmenter, notebooks, the demonstration, several processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "slow and not gpu"

docs: $(VENV)/docs.stamp ## the site, in docs/_build/html; warnings are errors
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -n -q docs docs/_build/html
	@echo "look at docs/_build/html/index.html"

package: $(VENV)/dev.stamp ## the sdist and the wheel, in dist/, checked
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	MPFNL_DIST=dist OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/package

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo dist docs/_build docs/_generated .mypy_cache .ruff_cache .pytest_cache .hypothesis
