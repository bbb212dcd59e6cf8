# `make demo` and `make test` need nothing but this checkout and the system packages of README.md:
# they create .venv, install into it from PyPI, and run.

PYTHON ?= python3
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# Stamps: an extra is installed again only when pyproject.toml has changed.
DEMO_STAMP := $(VENV)/.installed-demo
DEV_STAMP := $(VENV)/.installed-dev
SITE_STAMP := $(VENV)/.installed-site

.PHONY: help demo quick test campaign lint format docs site figures screenshots clean

help:
	@echo "make demo    compile the digit classifier, run it on the RTL, check every tensor"
	@echo "make quick   before a commit: lint, unit tests, one model on the RTL"
	@echo "make test    everything: lint, unit tests, RTL, formal proofs"
	@echo "make campaign  the long runs: 20 random inputs a model, thousands of random programs"
	@echo "make lint    ruff, mypy, codespell"
	@echo "make format  let ruff rewrite the sources"
	@echo "make docs    write what is generated: pages, header, picture, figures in README.md and docs/"
	@echo "make site    the documentation as web pages, in build/site"
	@echo "make figures  measure on the RTL what README.md and docs/ cite, and write it (minutes)"
	@echo "make screenshots  take the pictures of the report in docs/ (needs chromium)"
	@echo "make clean   remove build products (not $(VENV), not the simulator cache)"

demo: $(DEMO_STAMP)
	$(BIN)/celosia demo

# What builds no simulator, and the demo's model on one that is built already.
quick: $(DEV_STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --quiet tests/test_*.py tests/sw \
		tests/sim/golden tests/sim/emulator tests/hw/contract
	$(BIN)/celosia run examples/digits/digits_int8.tflite --config tiny --device sim --check

# One process a core; tests of one xdist group share what they build.
test: $(DEV_STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

campaign: $(DEV_STAMP)
	$(BIN)/python -m tests.e2e.test_rtl_models --random 20
	$(BIN)/python -m tests.e2e.test_rtl_random --config small4 --seeds 1000 1500
	$(BIN)/python -m tests.e2e.test_rtl_random --config small8 --seeds 1000 1500
	$(BIN)/python -m tests.e2e.test_random_graphs --seeds 0 1000
	$(BIN)/python -m tests.e2e.test_random_graphs --seeds 0 200 --device sim
	$(BIN)/python -m tests.e2e.test_rtl_faults --seeds 1000 3000
	$(BIN)/python -m tests.e2e.test_prediction --seeds 0 20
	$(BIN)/python -m tests.e2e.test_views --energy

lint: $(DEV_STAMP)
	$(BIN)/python -m pytest --quiet tests/test_lint.py

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Cheap figures are worked out, the others come from the records in docs/figures.
docs: $(DEV_STAMP)
	$(BIN)/python -m celosia.sw.docgen.pages

# Strict: a link or an anchor that leads nowhere is an error.
site: $(SITE_STAMP)
	$(BIN)/python -m celosia.sw.docgen.site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file build/mkdocs.yml
	@echo "build/site/index.html"

# The records of cycles. Those of builds and syntheses: celosia build, resources, clock --record.
CYCLES := docs/figures/cycles.json
figures: $(DEV_STAMP)
	$(BIN)/celosia bench --layers --resident --fold --latency 1,8,32,100 --bus 32,64,128 \
		--stalls 0.2 --record $(CYCLES)
	$(BIN)/celosia bench --config tiny --config nano --config wide --record $(CYCLES)
	$(BIN)/celosia bench --config nano --config tiny --config base --config wide \
		--config large \
		--model examples/digits/digits_int8.tflite --record $(CYCLES)
	$(BIN)/python -m celosia.sw.docgen.energies
	$(BIN)/python -m celosia.sw.docgen.sessions
	$(BIN)/python -m celosia.sw.docgen.pages

screenshots: $(DEV_STAMP)
	$(BIN)/python -m celosia.sw.docgen.screenshots

clean:
	rm -rf build sim_build results.xml .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Celosia needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# What the tests need includes what the demo needs.
$(DEMO_STAMP): pyproject.toml | $(BIN)/python
	@test $(DEV_STAMP) -nt pyproject.toml || \
		{ echo "installing celosia[sim,check] into $(VENV)"; $(PIP) --editable '.[sim,check]'; }
	@touch $@

$(DEV_STAMP): pyproject.toml | $(BIN)/python
	@echo "installing celosia[dev] into $(VENV)"
	@$(PIP) --editable '.[dev]'
	@touch $@

$(SITE_STAMP): pyproject.toml | $(BIN)/python
	@echo "installing celosia[site] into $(VENV)"
	@$(PIP) --editable '.[site]'
	@touch $@
