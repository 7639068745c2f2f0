# The commands of a developer's day. `make help` lists them.
PYTHON ?= python3
VENV   := .venv
STAMP  := $(VENV)/.installed
PYTEST := $(VENV)/bin/python -m pytest
# pinned: the versions of constraints.txt; lowest and highest: those that pyproject.toml allows.
DEPENDENCIES ?= pinned

.PHONY: help install lint test test-integration test-slow coverage docs fuzz demo demo-full demo-realfusion demo-text clean
.DEFAULT_GOAL := help

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-15s %s\n", $$1, $$2 }'

install: $(STAMP)  ## create or reuse .venv with vcgen and all it needs (PYTHON=... is the interpreter, DEPENDENCIES=lowest or highest)

lint: $(STAMP)  ## ruff (lint and format) and mypy
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

docs: $(STAMP)  ## the site of the documentation, in site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build

# One process per core, each with one thread: PyTorch's own threads gain little on models this small.
# COVERAGE=1 notes which lines of vcgen run; `make coverage` then says which did not.
PARALLEL := OMP_NUM_THREADS=1 $(PYTEST) -n auto $(if $(COVERAGE),--cov=vcgen --cov-append --cov-report=)

test: $(STAMP)  ## the quick tests: three minutes on two cores, no GPU
	$(PARALLEL) -m "not slow and not integration"

test-integration: $(STAMP)  ## tests of seconds each: short trainings, several processes, real data
	$(PARALLEL) -m integration

# pytest says 5 when it selects nothing: having no slow tests is no failure, but it is said.
test-slow: $(STAMP)  ## the slow tests: trainings of minutes and end-to-end runs
	@$(PARALLEL) --dist loadfile -m slow; status=$$?; \
	if [ $$status -eq 5 ]; then echo "no slow tests: none carries the marker 'slow'"; else exit $$status; fi

coverage: $(STAMP)  ## which lines of vcgen the quick and the integration tests never run; fails below 92 %
	rm -f .coverage
	$(MAKE) test test-integration COVERAGE=1
	$(VENV)/bin/python -m coverage report

fuzz: $(STAMP)  ## spoil 20,000 files of all kinds that vcgen reads: minutes; counts by kind, and a seed for each that is not refused well
	$(VENV)/bin/python tests/fuzz.py

demo: $(STAMP)  ## the shipped model on one image; then train, measure and render on the bundled data: four minutes on two cores
	$(VENV)/bin/python benchmarks/demo.py

demo-full: $(STAMP)  ## the same with ten minutes of training, all test views and the diffusion prior: a quarter of an hour
	$(VENV)/bin/python benchmarks/demo.py --full

demo-realfusion: $(STAMP)  ## one bundled image becomes a turntable and a mesh, by the shipped text prior
	$(VENV)/bin/python benchmarks/demo_realfusion.py

demo-text: $(STAMP)  ## a text becomes a turntable and a mesh, by the shipped text prior
	$(VENV)/bin/python benchmarks/demo_text.py

clean:  ## remove .venv; outputs/ stays
	rm -rf $(VENV)

INSTALL_pinned  := $(VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt
INSTALL_uv       = $(VENV)/bin/python -m pip install --disable-pip-version-check uv && $(VENV)/bin/uv pip install --python $(VENV)/bin/python
INSTALL_highest  = $(INSTALL_uv)
INSTALL_lowest   = $(INSTALL_uv) --resolution lowest-direct

# The stamp is older than either file when an install is due, so reuse costs nothing.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo "vcgen needs Python 3.11 or newer, and $(PYTHON) is not; try: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): the first time some gigabytes, most of them PyTorch with CUDA"
	$(INSTALL_$(DEPENDENCIES)) -e '.[test,dev]'
	@touch $@
