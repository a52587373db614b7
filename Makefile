# `make` lists what there is to do. Everything installs what it needs into .venv; Debian packages where it must.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
LISTEN ?= 127.0.0.1:8080
BIN := .venv/bin
export PYTHON
# A clone must not depend on where a developer's own Python settings point.
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help run install dev test lint types imports tests format bench bench-quick bench-compare bench-check clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/.installed ## start a simulated provider and the relay in front of it (LISTEN=127.0.0.1:8080)
	@$(BIN)/python tools/demo.py --listen $(LISTEN)

install: .venv/.installed ## make .venv with the relay in it: .venv/bin/relay
	@echo "ready: $(BIN)/relay"

dev: .venv/.dev ## the same, with what tests and checks need

test: dev lint types imports tests ## everything CI runs: lint, types, import contract, every test

lint: dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: dev ## mypy, strict
	$(BIN)/mypy

imports: dev ## the floors: nobody imports upward
	$(BIN)/lint-imports --no-logo

tests: dev ## every test, over real sockets
	$(BIN)/pytest -n 4 --dist worksteal

format: dev ## let ruff format the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.bench ## compare the relay with nginx, HAProxy, LiteLLM, sglang-router: 20 minutes, a report in .bench/
	@$(BIN)/python benchmarks/install_peers.py litellm sglang
	@$(BIN)/python -m benchmarks run

bench-quick: .venv/.bench ## the short version, against nginx alone: 3 minutes
	@$(BIN)/python -m benchmarks run --quick

bench-compare: .venv/.bench ## A=before.json B=after.json: what got better or worse, and what is noise
	@test -n "$(A)" -a -n "$(B)" || { echo "say which: make bench-compare A=.bench/before.json B=.bench/after.json" >&2; exit 2; }
	@$(BIN)/python -m benchmarks compare "$(A)" "$(B)"

bench-check: .venv/.bench ## find an artificial delay and an artificial cost at their size
	@$(BIN)/python -m benchmarks check

clean: ## remove what was installed and built
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

comma := ,
# pip's talk is kept, and shown when something went wrong.
define pip
	@echo "installing into .venv: $(2)"
	@$(BIN)/python -m pip install --disable-pip-version-check $(1) >.venv/pip.log 2>&1 || { cat .venv/pip.log >&2; exit 2; }
endef

.venv/.python:
	@command -v "$(PYTHON)" >/dev/null || \
		{ echo "Python 3.11 or newer is needed, and '$(PYTHON)' is none: apt-get install python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; say PYTHON=/path/to/python3.11" >&2; exit 2; }
	@sh tools/need.sh venv=python3-venv
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: .venv/.python setup.cfg pyproject.toml
	$(call pip,--editable .,the relay)
	@touch $@

.venv/.bench: .venv/.installed tools/need.sh
	@sh tools/need.sh gcc=gcc nginx=nginx haproxy=haproxy openssl=openssl openssl/ssl.h=libssl-dev
	$(call pip,--editable '.[bench]',what benchmarks need)
	@touch $@

.venv/.dev: .venv/.installed tools/need.sh
	@sh tools/need.sh nginx=nginx curl=curl node=nodejs npm=npm openssl=openssl ip=iproute2 \
		nghttp=nghttp2-client h2load=nghttp2-client chromium=chromium \
		gcc=gcc haproxy=haproxy openssl/ssl.h=libssl-dev
	$(call pip,--editable '.[dev$(comma)bench]',what tests and checks need)
	@touch $@
