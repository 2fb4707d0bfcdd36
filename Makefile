# Everything a user or developer of tfleet calls. `make` alone lists the targets.
#
# The environment is .venv; stamps inside it say what was installed, so that a second call does nothing.
# pip takes its settings (index, proxy, cache) from its own configuration and environment.

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CLUSTER_TESTS := tests/e2e
CODE := src tests benchmarks examples docs tools

# What pip installs depends on these two files only: the source is installed as a link to this folder.
INPUTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv dev demo test check format e2e chaos bench bench-torch bench-tune images docs reference constraints clean

help: ## list the targets
	@sed -n 's/^\([a-z][a-z0-9-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

venv: $(VENV)/.stamp-cpu ## set up .venv with what training needs

dev: $(VENV)/.stamp-dev ## set up .venv with the tools for tests, checks and docs too

demo: $(VENV)/.stamp-cpu ## train MNIST with 2 workers and 2 parameter servers
	$(BIN)/tfleet train mnist --workers 2 --ps 2 --steps 2000 --param hidden_units=100

test: $(VENV)/.stamp-dev ## run all tests that need no cluster
	$(BIN)/python -m pytest $(addprefix --ignore=,$(CLUSTER_TESTS)) $(PYTEST_ARGS)

check: $(VENV)/.stamp-dev ## check style, types, layers and docs
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(VENV)/.stamp-dev ## put the code into the one format
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

e2e: $(VENV)/.stamp-dev ## run the tests on a cluster of two nodes; needs root and ../shared/cluster
	$(BIN)/python -m pytest tests/e2e $(PYTEST_ARGS)

# The whole takes hours: 200 schedules, a soak of 30 minutes, and the tests of tests/chaos at their full length.
# `make chaos CHAOS_SCHEDULES=5 CHAOS_SEED=7` takes minutes: fewer than 200 schedules make all the rest short too.
CHAOS_SCHEDULES ?= 200
CHAOS_SEED ?= $(shell od -An -N3 -tu4 /dev/urandom | tr -d ' ')
CHAOS_LONG ?= $(shell [ $(CHAOS_SCHEDULES) -ge 200 ] && echo 1 || echo 0)
CHAOS_SOAK_MINUTES ?= $(if $(filter 1,$(CHAOS_LONG)),30,1.5)
CHAOS_KILLS_TIMED ?= $(if $(filter 1,$(CHAOS_LONG)),5,1)

chaos: export CHAOS_LONG := $(CHAOS_LONG)
chaos: export CHAOS_SEED := $(CHAOS_SEED)
chaos: export CHAOS_RESULTS ?= $(CHAOS_LONG)
chaos: $(VENV)/.stamp-dev ## kill, stop, cut off, fill up: random faults against real jobs; root fills disks too
	@echo "make: CHAOS_SEED=$(CHAOS_SEED)"
	code=0; \
	$(BIN)/python -m pytest tests/chaos $(PYTEST_ARGS) || code=1; \
	$(BIN)/python benchmarks/recovery.py --repeats $(CHAOS_KILLS_TIMED) || code=1; \
	$(BIN)/python benchmarks/chaos.py --schedules $(CHAOS_SCHEDULES) --seed $(CHAOS_SEED) || code=1; \
	$(BIN)/python benchmarks/soak.py --minutes $(CHAOS_SOAK_MINUTES) --seed $(CHAOS_SEED) || code=1; \
	$(BIN)/python benchmarks/write_measurements.py || code=1; \
	exit $$code

# Quiet, with 2 cores: more than an hour with these. ParameterServerStrategy takes part at 100 units only.
REPEATS ?= 5
LONG_REPEATS ?= 3

bench: $(VENV)/.stamp-dev ## measure speed and the other figures, then write docs/measurements.md
	$(BIN)/python benchmarks/steps.py --repeats $(REPEATS)
	$(BIN)/python benchmarks/steps.py --repeats $(REPEATS) --hidden-units 1000 --without ParameterServerStrategy
	for units in 100 1000; do \
	  $(BIN)/python benchmarks/whole.py --repeats $(LONG_REPEATS) --hidden-units $$units && \
	  $(BIN)/python benchmarks/limit.py --repeats $(LONG_REPEATS) --hidden-units $$units || exit 1; \
	done
	$(BIN)/python benchmarks/emulated.py --repeats $(LONG_REPEATS)
	$(BIN)/python benchmarks/model.py
	$(BIN)/python benchmarks/plots.py
	$(BIN)/python benchmarks/strategies.py
	$(BIN)/python benchmarks/sparse.py
	$(BIN)/python benchmarks/memory_worker.py --repeats $(REPEATS)
	$(BIN)/python benchmarks/figures.py
	$(BIN)/python benchmarks/write_measurements.py

bench-tune: $(VENV)/.stamp-dev ## tune the programs that `make bench` compares with
	$(BIN)/python benchmarks/tune.py

# PyTorch is a peer of the benchmarks only, so it has an environment of its own. PyPI's wheel brings CUDA along (5 GB);
# the other index has a smaller one: make bench-torch TORCH_INDEX='--extra-index-url https://download.pytorch.org/whl/cpu'
TORCH_INDEX ?=

bench-torch: .venv-torch/.stamp ## set up .venv-torch with PyTorch, which `make bench` compares with

.venv-torch/.stamp: | $(VENV)/.stamp-venv
	$(BIN)/python -m venv .venv-torch
	.venv-torch/bin/python -m pip --disable-pip-version-check --quiet install $(TORCH_INDEX) torch numpy
	@touch $@

# Called with tag, Dockerfile and context.
IMAGE_BUILDER ?= sh -c 'docker build -t "$$0" -f "$$1" "$$2"'
IMAGE_PREFIX ?= docker.io/library/
IMAGE_TAG ?= $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

images: ## build the images tfleet-ps, tfleet-worker and tfleet-nfs
	for image in ps worker nfs; do \
	  $(IMAGE_BUILDER) $(IMAGE_PREFIX)tfleet-$$image:$(IMAGE_TAG) images/$$image/Dockerfile . || exit 1; \
	done

docs: $(VENV)/.stamp-dev ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

reference: $(VENV)/.stamp-dev ## write the generated pages of the documentation anew
	$(BIN)/python docs/scripts/write_reference.py
	$(BIN)/python benchmarks/write_measurements.py
	$(BIN)/python tools/write_chart.py

constraints: $(VENV)/.stamp-dev ## write constraints.txt from what .venv holds
	$(BIN)/python -m pip list --format=freeze --exclude-editable --exclude pip --exclude setuptools > constraints.tmp
	mv constraints.tmp constraints.txt

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) .venv-torch site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The first Python of this list that fits is used; PYTHON=... overrides the list.
PYTHON ?=
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)

$(VENV)/.stamp-venv:
	@for python in $(PYTHONS); do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    $$python -m venv $(VENV) && touch $@ && exit 0; \
	    echo "make: $$python cannot make a virtual environment; install its venv module" \
	      "(on Debian: apt install python3-venv), or name another Python with make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	done; \
	echo "make: tfleet needs Python 3.11, 3.12 or 3.13, and none of these is one: $(PYTHONS);" \
	  "install one, or name it with make PYTHON=/path/to/python3" >&2; \
	exit 1

$(VENV)/.stamp-cpu: $(VENV)/.stamp-venv $(INPUTS)
	@echo "make: installing tfleet and TensorFlow into $(VENV) (once; 1.6 GB on disk, some minutes without output)"
	$(PIP) install -c constraints.txt -e '.[cpu]'
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-venv $(INPUTS)
	@echo "make: installing tfleet, TensorFlow and the developers' tools into $(VENV) (once)"
	$(PIP) install -c constraints.txt -e '.[cpu,dev,docs]'
	@touch $@ $(VENV)/.stamp-cpu
