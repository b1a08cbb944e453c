# Ambit's commands. Each does all of its own set-up (tools/setup.sh), and only what is missing: run `make` to see them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON := .venv/bin/python
CARGO := tools/with-rust cargo
WORKSPACE := --manifest-path dataplane/Cargo.toml --workspace --locked

# The border crate is a Python extension: it has no main and no libpython to link a test binary with, and holds no logic.
RUST_TESTS := --exclude ambit-dataplane

CHECKS := lint-python lint-types lint-imports lint-generated lint-rust lint-dependencies lint-stubs

# How long `make fuzz` runs each target, and which ones (all of dataplane/fuzz/fuzz_targets when empty).
FUZZ_SECONDS := 300
FUZZ_TARGETS :=
FUZZ := --manifest-path dataplane/fuzz/Cargo.toml --locked

.PHONY: help demo test lint bench build proto crds format clean $(CHECKS) test-rust test-fuzz test-python fuzz soak \
        setup-build setup-demo setup-lint setup-test setup-bench

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## The two commands that a fresh machine starts with -------------------------------------------------------------------

demo: setup-demo ## Build what is missing, then a mesh of two nodes, measured live and printed as a table
	.venv/bin/ambit demo

test: setup-test $(CHECKS) test-rust test-fuzz test-python ## Run every check and every test

## Parts of them -------------------------------------------------------------------------------------------------------

lint: setup-lint $(CHECKS) ## Run every check, in both languages

lint-python: ## ruff: rules and format
	.venv/bin/ruff check
	.venv/bin/ruff format --check

lint-types: ## mypy, strict, over packages and tests
	.venv/bin/mypy

lint-imports: ## import-linter: the floors and the sole owners of pyproject.toml
	.venv/bin/lint-imports --no-logo

lint-generated: ## mesh/wire is what proto/ generates, deploy/crds what controller/kinds does
	tools/check-generated.sh

lint-rust: ## rustfmt, and clippy with warnings denied
	$(CARGO) fmt --manifest-path dataplane/Cargo.toml --all --check
	$(CARGO) clippy $(WORKSPACE) --all-targets -- -D warnings
	$(CARGO) fmt --manifest-path dataplane/fuzz/Cargo.toml --check
	$(CARGO) clippy $(FUZZ) -- -D warnings

lint-dependencies: ## cargo-deny: licences, sources, bans, advisories
	tools/deny.sh

lint-stubs: ## stubtest: the native module is what its .pyi says
	$(PYTHON) -m mypy.stubtest dataplane._native

test-rust: ## The Rust tests
	$(CARGO) test $(WORKSPACE) $(RUST_TESTS)

test-fuzz: ## Each fuzz target for 20 seconds
	tools/fuzz.sh 20

test-python: ## The Python tests; PYTEST_ARGS="tests/unit -k NAME" picks some
	$(PYTHON) -m pytest $(PYTEST_ARGS)

## Everything else -----------------------------------------------------------------------------------------------------

build: setup-build ## Make .venv with the ambit command and the native module

fuzz: setup-test ## Each fuzz target for FUZZ_SECONDS (300), or FUZZ_TARGETS="dns framer"; finds stay in the corpus
	FUZZ_KEEP=1 tools/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

soak: setup-bench ## SOAK_SECONDS (600) of load and churn: no wrong answer, flat memory and descriptors
	$(PYTHON) -m bench soak

bench: setup-bench ## Measure beside the peers, and write the tables to bench/results/
	$(PYTHON) -m bench all

proto: setup-lint ## Generate mesh/wire from proto/ anew
	$(PYTHON) proto/generate.py

crds: setup-lint ## Write deploy/crds from controller/kinds anew
	$(PYTHON) -m deploy.generate

format: setup-lint ## Format both languages, and fix what ruff can
	.venv/bin/ruff check --fix
	.venv/bin/ruff format
	$(CARGO) fmt --manifest-path dataplane/Cargo.toml --all

clean: ## Remove what was made here (Rust's build cache, ~/.cache/ambit, stays)
	rm -rf .venv dist dataplane/_native*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup-build setup-demo setup-lint setup-test setup-bench: setup-%:
	@tools/setup.sh $*
