# `make` lists the targets. Each one sets up what it needs in .venv first; what is there already is kept.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.fakd-ready
STARTED := $(VENV)/.fakd-started

# PYTHON=... chooses the interpreter, else the first of these that fits: 3.10 to 3.12, able to make an environment.
CANDIDATES = $(or $(PYTHON),python3 python3.12 python3.11 python3.10)
FITS := import sys, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install quickstart test test-slow test-upstream lint bench bench-gpu docs doctor clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

install: $(READY)  ## set up .venv: PyTorch, detectron2, this package
	@echo "$(VENV) is ready"

quickstart: $(READY)  ## train a teacher and three students on toyscenes, and report
	@$(BIN)/python tools/quickstart.py

test: $(READY)  ## run the tests in three processes, since many wait, and print the ten slowest
	$(BIN)/python -m pytest -q -n 3 --dist worksteal --durations=10

test-slow: $(READY)  ## run the tests that take minutes: the README in a copy, clusters, every format
	$(BIN)/python -m pytest -q -m slow

# Not part of CI: it needs GitHub, and upstream may have changed overnight. The environment is one of its own.
test-upstream:  ## run the tests with upstream's newest detectron2 (needs GitHub and a C++ compiler)
	$(MAKE) install VENV=build/upstream
	build/upstream/bin/python -m pip uninstall -q -y detectron2
	PIP_CONSTRAINT=constraints.txt build/upstream/bin/python tools/install_detectron2.py --from git
	$(MAKE) test VENV=build/upstream

lint: $(READY)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## measure speed and memory beside plain reference forms
	$(BIN)/python -m benchmarks

bench-gpu: $(READY)  ## check and measure on a GPU, forty minutes; again: go on
	$(BIN)/python -m benchmarks.gpu --minutes 40

docs: $(BIN)/mkdocs  ## make the documentation's site in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

doctor:  ## say what is installed and how to fix what is missing
	@python=$(BIN)/python; [ -x $$python ] || python=python3; $$python tools/doctor.py

clean:  ## remove caches and build folders; .venv, datasets and output stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find fakd tools tests benchmarks projects -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/mkdocs: $(READY)
	$(BIN)/python -m pip install -q --use-pep517 -c constraints.txt -e '.[docs]'
	@touch $@

# The environment is made anew only if it cannot be used: an unfit Python, no pip, or a set-up that was cut off
# (STARTED is still there, and pip may take half a package for a whole one).
$(READY): setup.cfg pyproject.toml constraints.txt fakd/install_detectron2.py fakd/detectron2-59d9fb1.sha256
	@if [ -e $(STARTED) ] || ! $(BIN)/python -c "import pip; $(FITS)" 2>/dev/null; then \
		for python in $(CANDIDATES); do \
			if "$$python" -c "$(FITS)" 2>/dev/null; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "No Python 3.10 to 3.12 with venv and ensurepip among: $(CANDIDATES)" >&2; \
			echo "Name one: make install PYTHON=/path/to/python3.11 (Debian, Ubuntu: apt install python3-venv)" >&2; \
			exit 1; \
		fi; \
		echo "Making $(VENV) with $$($$found --version)"; \
		rm -rf $(VENV) && "$$found" -m venv $(VENV) || exit 1; \
	fi
	@touch $(STARTED)
	@echo "Installing PyTorch and the other requirements into $(VENV) (5 GB, some minutes)"
	@$(BIN)/python -m pip install -q --use-pep517 -c constraints.txt -e '.[dev,tune]'
	@PIP_CONSTRAINT=constraints.txt $(BIN)/python tools/install_detectron2.py
	@mv $(STARTED) $@
