# make demo   installs what is needed into .venv and runs the whole pipeline on the embedded dataset
# make demo-real   the same on real brain MRI and chest X-rays (CLINPROMPT_DATA names the folder that holds them), with a
#                  larger backbone
# make run    runs the pipeline on the datasets of params.yaml, as make demo does; first mends what a kill has left
# make test   the same installation if needed, and the tests that need no server, no Airflow and no whole pipeline
# make test-all   all tests: those of make test, whole pipelines, kills, Airflow, real servers, containers
# make lint   style, types, and the direction of the imports
# make airflow   installs Airflow into .venv-airflow and starts it with the DAGs, on SQLite, for one machine
# make test-images   builds the images that the tests of a whole run in containers need, with podman
# make images    builds the components' images and writes their digests to infra/images.lock (IMAGE_ARGS="--base REF")

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AIRFLOW := .venv-airflow
# uv, or where it can't reach the indexes as pip does, pip.
INSTALL = sh infra/install.sh $(1) $(2) requirements/images/uv.txt || $(2)/bin/python -m pip install --require-hashes --no-deps -r $(1)
UV_COMPILE := ../$(BIN)/uv pip compile --quiet --python-version 3.11 --no-emit-index-url --no-header --no-annotate

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-real run test test-all test-components test-dags test-retrain test-servers test-images lint bench airflow images lock clean

demo run: $(VENV)/.components
	python -m components.run

demo-real: $(VENV)/.components
	python -m clinprompt.backbones.fetch open-towers
	python -m components.run --settings experiments/demo-real.yaml

# Files go to two processes in the order of tests/conftest.py: the slowest first.
PYTEST := pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.components $(VENV)/.dev
	$(PYTEST) -m "not servers and not e2e and not minutes" $(PYTEST_ARGS)

# Three at a time: what runs on servers mostly waits, and takes longest, so the others are nice to it. The output of each
# part comes when the part has ended.
test-all: $(VENV)/.components $(VENV)/.dev $(AIRFLOW)/.dev
	@echo "All tests: about 30 minutes; each part is printed when it has ended."
	$(MAKE) --no-print-directory --jobs=3 --output-sync=target test-components test-dags test-retrain test-servers

# What needs no server, and no Airflow.
test-components: $(VENV)/.components $(VENV)/.dev
	nice $(PYTEST) -m "not servers" $(PYTEST_ARGS)

test-dags: $(AIRFLOW)/.dev
	nice $(AIRFLOW)/bin/python -m pytest -m "not servers" tests/dags $(PYTEST_ARGS)

# On real servers, which infra/dev starts: skipped where their packages are missing (infra/dev/packages.sh).
test-retrain: $(VENV)/.components $(VENV)/.dev $(AIRFLOW)/.airflow
	pytest tests/servers/test_servers_retrain.py $(PYTEST_ARGS)

# Where the images are asked for as well, the tests wait for them.
test-servers: $(VENV)/.components $(VENV)/.dev $(AIRFLOW)/.airflow | test-dags $(filter test-images,$(MAKECMDGOALS))
	pytest tests/servers --ignore=tests/servers/test_servers_retrain.py $(PYTEST_ARGS)

# What the whole run in containers needs beside them: the images, 7 GB.
test-images: $(VENV)/.components
	infra/dev/images.sh

lint: $(VENV)/.components $(VENV)/.dev
	ruff check .
	ruff format --check .
	mypy
	PYTHONPATH=dags lint-imports

bench: $(VENV)/.components
	python -m benchmarks.pipeline && python -m benchmarks.cache && python -m benchmarks.coop
	python -m benchmarks.methods_cilmp && python -m benchmarks.methods_text && python -m benchmarks.stack

airflow: $(VENV)/.components $(AIRFLOW)/.airflow
	infra/dev/airflow.sh

images: $(VENV)/.components
	python -m infra.images build $(IMAGE_ARGS)
	python -m infra.images lock

$(VENV)/.components: requirements/components.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "clinprompt needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(call INSTALL,requirements/components.txt,$(VENV))
	touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.components
	$(call INSTALL,requirements/dev.txt,$(VENV))
	touch $@

$(AIRFLOW)/.airflow: requirements/airflow.txt
	test -x $(AIRFLOW)/bin/python || $(PYTHON) -m venv $(AIRFLOW)
	$(call INSTALL,requirements/airflow.txt,$(AIRFLOW))
	touch $@

$(AIRFLOW)/.dev: requirements/airflow-dev.txt $(AIRFLOW)/.airflow
	$(call INSTALL,requirements/airflow-dev.txt,$(AIRFLOW))
	touch $@

# Resolves everything anew. Extra indexes or folders of wheels: make lock UV_ARGS="--find-links FOLDER".
lock: $(VENV)/.dev
	cd requirements && $(UV_COMPILE) --override overrides.txt $(UV_ARGS) components.in airflow.in -o constraints.txt
	cd requirements && $(UV_COMPILE) --universal --generate-hashes --override overrides.txt \
	    -c constraints.txt $(UV_ARGS) components.in -o components.txt
	cd requirements && $(UV_COMPILE) --universal --generate-hashes $(UV_ARGS) dev.in -o dev.txt
	cd requirements && $(UV_COMPILE) --universal --generate-hashes -c constraints.txt $(UV_ARGS) \
	    airflow.in -o airflow.txt
	cd requirements && $(UV_COMPILE) --universal --generate-hashes $(UV_ARGS) airflow-dev.in -o airflow-dev.txt
	cd requirements && for image in data vision registry mlflow uv sbom; do \
	    $(UV_COMPILE) --universal --generate-hashes --override overrides.txt -c dev.txt -c constraints.txt $(UV_ARGS) \
	        images/$$image.in -o images/$$image.txt || exit 1; done
	python -m infra.images lock --without-images

clean:
	rm -rf $(VENV) $(AIRFLOW) .airflow runs data mlflow.db mlartifacts dvc.lock
