# make run     start the server in simulation on http://localhost:8080 (live with SIMULATION_MODE=false)
# make test    every test, several at a time; ARGS="-k transcript" passes arguments on to pytest,
#              ARGS="-n 0" runs one after the other
# make check   linter, formatter, strict type check
# make bench   what the relay costs and how late it makes packets, what recording and notices cost
#              (20 minutes, two cores, Linux; ARGS=--quick takes two; writes docs/performance.md)
# make image-test  build the container image and try it, without a container engine (root on
#              Debian, with buildah and debootstrap; two minutes the first time)
# make soak    interviews coming, going and breaking for 30 minutes; fails if anything of them is
#              left (ARGS="--minutes 5"; writes docs/reliability.md)
# make format  let the linter and the formatter mend what they can
# make lock    write the lock files anew (needs uv; ARGS=--upgrade takes newer versions)
#
# PYTHON chooses the interpreter that .venv is made with: make run PYTHON=python3.13

PYTHON ?= python3
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCK := $(UV) pip compile --universal --python-version 3.11 \
	--fork-strategy fewest --generate-hashes --no-annotate --quiet \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help run test image-test check bench soak format lock clean

help:
	@sed -n 's/^# \{0,1\}//; 1,/^$$/p' Makefile | sed '/^PYTHON/,$$d'

run: $(VENV)/.installed
	@$(BIN)/interview-peer serve --prefer-simulation $(ARGS)

test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -n auto --maxschedchunk 1 $(ARGS)

image-test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -m image tests/image $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A goal missed by one part ends in its exit code; the other parts are measured all the same.
bench: $(VENV)/.installed-dev
	@status=0; \
	$(BIN)/python -m bench $(ARGS) || status=1; \
	for part in notices recording attack; do \
		$(BIN)/python -m bench.$$part $(if $(findstring --quick,$(ARGS)),--quick) || status=1; \
	done; \
	exit $$status

soak: $(VENV)/.installed-dev
	@$(BIN)/python -m bench.soak $(ARGS)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Each further lock holds the versions of the one before it.
lock:
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: python3 -m pip install uv"; exit 2; }
	$(LOCK) $(ARGS) pyproject.toml -o requirements.lock
	$(LOCK) $(ARGS) pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock
	$(LOCK) --group build -c requirements-dev.lock -o requirements-build.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "This Python cannot make environments; on Debian: apt-get install python3-venv"; exit 2; }
	@echo "Making $(VENV); the first time takes about a minute."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock requirements-build.lock pyproject.toml hatch_build.py \
		interview_peer/media/_native.c | $(BIN)/python
	@$(PIP) install --require-hashes -r requirements.lock -r requirements-build.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed | $(BIN)/python
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@
