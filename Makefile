# make demo   set up, train on real photographs, show what it did
# make test   set up, run the tests
PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin
# Tests are compiled with their assertions taken apart, which takes each process seconds: keep that.
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: demo test test-slow lint types clean

demo: $(VENV)/ready
	$(BIN)/python -m sr_train train +experiment=quickstart resume=auto

test: $(VENV)/ready
	$(PYTEST)

test-slow: $(VENV)/ready
	$(PYTEST) -m "slow and not gpu"

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready
	$(BIN)/mypy

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache
