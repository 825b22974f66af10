# make demo   installs what is needed into .venv and runs the whole pipeline on the embedded dataset
# make test   the same installation if needed, and the test suite
# make lint   style, types, and the direction of the imports

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --require-hashes --no-deps
UV_COMPILE := ../$(BIN)/uv pip compile --quiet --python-version 3.11 --no-emit-index-url --no-header --no-annotate

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo run test lint bench lock clean

demo: $(VENV)/.components
	dvc repro
	python -m components

test: $(VENV)/.components $(VENV)/.dev
	pytest -n 2 --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.components $(VENV)/.dev
	ruff check .
	ruff format --check .
	mypy
	lint-imports

bench: $(VENV)/.components
	python -m benchmarks.pipeline && python -m benchmarks.cache && python -m benchmarks.coop

$(VENV)/.components: requirements/components.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "clinprompt needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -r requirements/components.txt
	touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.components
	$(PIP_INSTALL) -r requirements/dev.txt
	touch $@

# Resolves everything anew. Extra indexes or folders of wheels: make lock UV_ARGS="--find-links FOLDER".
lock: $(VENV)/.dev
	cd requirements && $(UV_COMPILE) --override overrides.txt $(UV_ARGS) components.in airflow.in -o constraints.txt
	cd requirements && $(UV_COMPILE) --universal --generate-hashes --override overrides.txt \
	    -c constraints.txt $(UV_ARGS) components.in -o components.txt
	cd requirements && $(UV_COMPILE) --universal --generate-hashes $(UV_ARGS) dev.in -o dev.txt

clean:
	rm -rf $(VENV) runs data mlflow.db mlartifacts dvc.lock
