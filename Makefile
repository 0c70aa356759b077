# Everything runs in .venv, which the first target that needs it makes. Wants Python 3.11 or later
# with its venv module, and nothing else: no uv, no Docker, no Redis.

# A shim may be on PATH and refuse, so each candidate is tried.
PYTHON ?= $(shell for python in python3.11 python3 /usr/bin/python3 python3.12 python3.13; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
INSTALLED := .venv/.installed
RUN := .venv/bin/python -m
# The pages have tools of their own, which no test needs.
DOCS := .venvs/docs/.installed

# What quick leaves to test: what takes long, and what starts processes.
LONG := twenty_seeds or times_then_dead or real_server or cancelled or ctrl_c or forks or hold_up or \
	passes_the_contract or fewer_moves or sharded_orders or test_servers
CODE := leanmq tests benchmarks scripts $(wildcard examples)
N ?= 10

.DEFAULT_GOAL := help
.PHONY: help venv demo quick test lint types check matrix mutants flake soak bench docs clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "install Python 3.11 or later with its venv module (Debian, \
	Ubuntu: apt-get install python3 python3-venv), or name one: make PYTHON=python3.12" >&2; exit 1; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	$(RUN) pip install -qq --upgrade 'pip>=25.1'
	$(RUN) pip install -qq --editable '.[fast,cli]' --group dev
	@touch $@

venv: $(INSTALLED) ## Make .venv with all that the other targets need

demo: $(INSTALLED) ## A shop in ten seconds; then 1,000 orders, in memory and on a real Redis
	$(RUN) leanmq demo
	$(RUN) examples.demo

# These tests wait more than they compute, hence more workers than cores.
quick: $(INSTALLED) ## Unit tests, and the contract in memory: about 40 s, no server needed
	$(RUN) pytest tests/contract tests/unit tests/fundamentals tests/docs -q -n 6 --dist worksteal \
		--ignore=tests/unit/test_typing.py --ignore=tests/unit/servers \
		--subjects=memory-asyncio -k 'not ($(LONG))'

test: $(INSTALLED) ## All tests, on one server and one redis-py: about 10 minutes
	$(RUN) pytest tests -q -n 5 --dist worksteal

lint: $(INSTALLED) ## Style: ruff check, ruff format
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(INSTALLED) ## Types: mypy --strict
	$(RUN) mypy --strict $(CODE)

check: lint types test ## Lint, types, test

matrix: $(INSTALLED) ## The contract on all servers, versions of redis-py and interpreters
	$(RUN) scripts.matrix $(ROWS)

mutants: $(INSTALLED) ## Whether the contract notices what is broken on purpose
	$(RUN) scripts.mutants $(MUTANTS)

flake: $(INSTALLED) ## The contract N=10 times in random order; tells the seed of a failure
	@for run in $$(seq $(N)); do \
		seed=$$(od -An -N3 -tu4 /dev/urandom | tr -d ' '); \
		echo "flake: run $$run of $(N), --randomly-seed=$$seed"; \
		$(RUN) pytest tests/contract -q -n 2 --randomly-seed=$$seed || \
			{ echo "flake: failed in run $$run of $(N) with --randomly-seed=$$seed"; exit 1; }; \
	done; echo "flake: $(N) runs passed"

soak: $(INSTALLED) ## Random faults under load on real servers, and an account of every message
	$(RUN) tests.soak $(SOAK)

bench: $(INSTALLED) ## Throughput, as a share of what a raw socket does
	$(RUN) benchmarks.ratio

$(DOCS): pyproject.toml
	@test -n "$(PYTHON)" || { echo "install Python 3.11 or later with its venv module (Debian, \
	Ubuntu: apt-get install python3 python3-venv), or name one: make PYTHON=python3.12" >&2; exit 1; }
	test -x .venvs/docs/bin/python || $(PYTHON) -m venv .venvs/docs
	.venvs/docs/bin/python -m pip install -qq --upgrade 'pip>=25.1'
	.venvs/docs/bin/python -m pip install -qq --group docs
	@touch $@

# No --quiet: it would keep warnings from being counted, and so from failing the build.
docs: $(DOCS) ## Build the pages into site/; open site/index.html
	NO_MKDOCS_2_WARNING=1 .venvs/docs/bin/python -m mkdocs build --strict --clean
	.venvs/docs/bin/python -m scripts.offline site

clean: ## Delete what can be made again
	rm -rf .venv .venvs .servers .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site
	find . -name __pycache__ -prune -exec rm -rf {} +
