# `make` lists what there is. Everything works from a bare clone: each target sets up what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_BENCH := $(VENV)/.installed-bench
PYTEST_ARGS ?=
# Three tests may fail once, and are named: see docs/decisions/0023-a-second-try-for-three-tests.md.
SECOND_TRY ?= --reruns 1 --max-suite-reruns 3 --rerun-show-tracebacks
BENCH ?=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

.PHONY: demo
demo: $(INSTALLED) ## Set up, then train the sample strategy on the bundled EUR/USD bars
	@$(BIN)/ktrdr train strategies/eurusd_momentum.yaml --seed 7

.PHONY: test
test: $(INSTALLED_DEV) ## Set up, then run every test
	@scripts/obtain-broker $(BIN)/python
	@scripts/obtain-postgres $(BIN)/python
	@$(BIN)/pytest -n 3 --dist loadgroup $(SECOND_TRY) $(PYTEST_ARGS)

.PHONY: check
check: $(INSTALLED_DEV) ## Lint, format, types, layers, generated files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m ktrdr.events.schemas --check schemas
	@$(BIN)/python -m ktrdr.bus.asyncapi --check schemas
	@$(BIN)/python -m ktrdr.backend.api.openapi --check schemas
	@$(BIN)/python -m ktrdr.language.schema --check schemas
	@$(BIN)/python -m ktrdr.language.coverage --check docs

.PHONY: fix
fix: $(INSTALLED_DEV) ## Apply the formatter and what the linter can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: schemas
schemas: $(INSTALLED_DEV) ## Generate schemas/ and docs/strategies.md from the code
	@$(BIN)/python -m ktrdr.events.schemas schemas
	@$(BIN)/python -m ktrdr.bus.asyncapi schemas
	@$(BIN)/python -m ktrdr.backend.api.openapi schemas
	@$(BIN)/python -m ktrdr.language.schema schemas
	@$(BIN)/python -m ktrdr.language.coverage docs

.PHONY: chaos
chaos: $(INSTALLED_DEV) ## Long tests, then many trainings while everything fails; SEED=1 JOBS=200 SECONDS=300
	@scripts/obtain-broker $(BIN)/python
	@scripts/obtain-postgres $(BIN)/python
	@$(if $(SEED),:,KTRDR_CHAOS=1 $(BIN)/pytest -n 2 --dist loadgroup -m long $(PYTEST_ARGS))
	@$(BIN)/python -m tests.e2e.storm $(if $(SEED),--seed $(SEED)) --jobs $(or $(JOBS),200) --seconds $(or $(SECONDS),300)

.PHONY: sim
sim: $(INSTALLED_DEV) ## Simulated worlds in which everything fails, faster than time; SEEDS=200, or one: SEED=7
	@$(BIN)/python -m tests.sim.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),200) --first $(or $(FIRST),1))

.PHONY: bench
bench: $(INSTALLED_BENCH) ## Measure, each figure as a ratio against a baseline of the same run
	@scripts/obtain-broker $(BIN)/python
	@scripts/obtain-postgres $(BIN)/python
	@$(BIN)/python -m benchmarks $(BENCH)

.PHONY: setup
setup: $(INSTALLED_DEV) ## Only set up the virtual environment, with what development needs

.PHONY: clean
clean: ## Remove the virtual environment and caches; models and operations stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt scripts/setup
	@scripts/setup $(VENV) .
	@touch $@

$(INSTALLED_BENCH): pyproject.toml constraints.txt scripts/setup
	@scripts/setup $(VENV) '.[dev,bench]'
	@touch $(INSTALLED) $(INSTALLED_DEV) $@

$(INSTALLED_DEV): pyproject.toml constraints.txt scripts/setup
	@scripts/setup $(VENV) '.[dev]'
	@touch $(INSTALLED) $@
