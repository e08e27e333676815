# Every target sets up .venv by itself. A finished set-up leaves .venv/.ready-<checksum of what it depends on>;
# so a second call starts at once, a changed pyproject.toml or constraints.txt installs what changed, and a set-up
# that was interrupted (no such file) is done again from an empty environment.

SHELL  := /bin/bash
VENV   ?= .venv
JOBS   ?= 2
EXTRAS := torch,fast,networks,tensorboard,analysis,cluster,dev
PY     := $(VENV)/bin/python
KEY    := $(shell { pwd; cat pyproject.toml constraints.txt; } | cksum | tr ' ' -)
READY  := $(VENV)/.ready-$(KEY)

# Two OpenMP threads that spin for work slow each other down more than tenfold on a busy machine.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= passive
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
export PYTHONUNBUFFERED ?= 1
# Each of the many processes of a run compiles everything it imports where byte code is not kept.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup report test test-slow test-gpu test-all certify lint docs bench clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(READY)  ## the virtual environment .venv: the package, editable, and all that the other targets need

$(READY):
	@set -euo pipefail; \
	if compgen -G '$(VENV)/.ready-*' > /dev/null && $(PY) -c ''; then \
	  rm -f $(VENV)/.ready-*; \
	else \
	  for python in $(PYTHON) python3.11 python3; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null && break || python=; \
	  done; \
	  [ -n "$$python" ] || { echo 'error: no Python >= 3.11 found; name one: make PYTHON=/path/to/python' >&2; exit 2; }; \
	  $$python -m venv --clear $(VENV); \
	fi; \
	$(PY) -m pip install --quiet --constraint constraints.txt hatchling; \
	$(PY) -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[$(EXTRAS)]'; \
	touch $@

report: $(READY)  ## run the studies; writes results/report.html and its figures, fails if a claim fails
	$(PY) -m analysis report --jobs $(JOBS)

test: $(READY)  ## the fast tests (a few minutes)
	$(PY) -m pytest -n $(JOBS) --dist worksteal

test-slow: $(READY)  ## the long tests alone
	$(PY) -m pytest -n $(JOBS) --dist worksteal -m slow

test-gpu: $(READY)  ## Triton's kernels, interpreted and compiled: needs no GPU, installs Triton
	$(PY) -m pip install --quiet --constraint constraints.txt triton
	$(PY) -m pytest tests/test_gpu.py tests/test_gpu_compiled.py tests/test_networks_cuda.py -m 'slow or not slow'

test-all: $(READY)  ## all tests, the long ones too
	$(PY) -m pytest -n $(JOBS) --dist worksteal -m 'slow or not slow'

certify: $(READY)  ## hours: 1,000 random problems against 30 digits, 200 enclosures, 300 runs of the suite, 250 kills
	$(PY) -m tests.certify
	$(PY) -m tests.test_enclosure
	$(PY) -m tests.calibrate
	$(PY) -m tests.crashes 50
	$(PY) -m tests.judge_noise
	$(PY) -m tests.sweep_crashes 200

lint: $(READY)  ## ruff and pyright
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright

docs: $(READY)  ## the documentation, into docs/_build/html
	rm -rf docs/api  # pages of modules that may be gone
	$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo 'docs/_build/html/index.html'

bench: $(READY)  ## the benchmarks there are
	$(PY) -m analysis bench

clean:  ## remove what the other targets made, .venv included
	rm -rf $(VENV) results build dist docs/_build docs/api .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
