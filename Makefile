# demo, compare, bench, test and check: each sets up what it needs. `make help` lists them.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
QUICKSTART := workloads/quickstart.jsonl
SYSTEMS := diffusers swiftdiff swiftdiff-bal
RESULTS := results/demo-$(shell date +%Y%m%d-%H%M%S)
COMPARED := diffusers nirvana swiftdiff swiftdiff-bal

.DEFAULT_GOAL := help
.PHONY: help demo compare bench bench-gpu test check format quickstart venv clean

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(STAMP) ## Replay the quickstart trace with stock diffusers and with swiftdiff, and compare them
	for system in $(SYSTEMS); do \
	  $(BIN)/swiftdiff replay $(QUICKSTART) --config workloads/configs/$$system.toml --out $(RESULTS)/$$system \
	    || exit 1; \
	done
	$(BIN)/swiftdiff compare $(SYSTEMS:%=$(RESULTS)/%) --out $(RESULTS)/comparison

compare: $(STAMP) ## Compare four systems on the paper's seven adapter settings, on an idle machine: results/
	$(BIN)/swiftdiff trace generate paper --out results/traces/paper.jsonl --force
	$(BIN)/swiftdiff compare $(COMPARED:%=workloads/configs/%.toml) --trace results/traces/paper.jsonl \
	  --max-concurrency 1 --ablation $(COMPARE)

bench: $(STAMP) ## Measure stock against swiftdiff and each switch, on an idle machine: tables in results/
	$(BIN)/swiftdiff bench $(BENCH)

bench-gpu: $(STAMP) ## Measure the paper's settings on this machine's GPUs in 8 minutes: results/published/
	$(BIN)/swiftdiff bench-gpu --publish results/published $(BENCH)

test: $(STAMP) ## Run all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP) ## Check style, types and which way imports point
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP) ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

quickstart: $(STAMP) ## Write the quickstart trace and draw its control images again
	$(BIN)/python -m swiftdiff.trace.quickstart workloads

venv: $(STAMP) ## Create .venv and install swiftdiff into it

clean: ## Delete .venv and caches; results stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# torch goes first and alone, pinned, so that pip takes a CPU build where one is at hand and the project's own
# requirements never bring another.
$(STAMP): pyproject.toml setup.cfg constraints.txt
	@$(BIN)/python -c '' 2>/dev/null || { \
	  for python in python3 python3.13 python3.12 python3.11; do \
	    $$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    echo "creating $(VENV) with $$($$python --version)"; \
	    $$python -m venv --clear $(VENV) && exit 0 || exit 1; \
	  done; \
	  echo "error: Python 3.11 or newer with its venv module is needed (on Debian: apt install python3-venv)" >&2; \
	  exit 1; }
	@echo "installing torch (the first time takes minutes)"
	@$(PIP) install -q -c constraints.txt torch
	@echo "installing swiftdiff and what it needs"
	@$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
