# Baguette's own commands; `make` lists them. Everything a target needs is installed or built on the
# way (scripts/setup, once). Values for `make demo` go through the environment, never through a
# shell line, so a prompt may hold quotes, dollars and line ends.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

VENV := .venv
PY := $(VENV)/bin/python
PYPROJECT := python_worker/pyproject.toml
PYTHON_CODE := python_worker scripts scripts/check_style $(wildcard tests *.py)
SHELL_CODE := scripts/setup .ci/run

# Handed on as they were typed: make itself expands nothing in them.
define as_typed
ifneq ($$(origin $(1)),undefined)
override $(1) := $$(value $(1))
export $(1)
endif
endef
OPTIONS := PROMPT N STEPS GUIDANCE TOPK SEED NODES OUT PORT MODEL ID NAME
OPTIONS += NODE PEERS ADDRESS SECRET SECRET_FILE TAILSCALE FOREGROUND CHAOS EXPERTS REPO DIR
$(foreach name,$(OPTIONS),$(eval $(call as_typed,$(name))))

# The parts share build directories and addresses.
.NOTPARALLEL:
.PHONY: help setup build demo up status top events token down shell doctor join leave invite \
	bench bench-step bench-throughput bench-prediction plots \
	bench-cluster bench-reliability bench-http \
	weights test test-erlang test-python test-cluster test-chaos screenshots check check-erlang \
	check-style check-python check-shell dialyzer fmt train-mini clean

help: ## list these targets
	@echo 'make TARGET [NAME=value ...]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' Makefile
	@echo 'demo and up take NODES PORT MODEL; demo also PROMPT N STEPS GUIDANCE TOPK SEED OUT:'
	@echo 'join, doctor, leave, invite, status, events and shell take ADDRESS PORT; events also ID,'
	@echo 'join also PEERS MODEL:'
	@echo '  make join                      make join PEERS=192.168.1.20,192.168.1.21'
	@echo 'for example:'
	@echo '  make demo PROMPT="a red circle on a blue background" SEED=7 NODES=4'

setup: ## install what is missing: Erlang packages, .venv, pinned Python packages
	@scripts/setup </dev/null

# --- a cluster on this machine -------------------------------------------------------------------

ERLANG_SOURCES := $(wildcard apps/*/src apps/*/include apps/*/src/*.erl apps/*/src/*.app.src \
	apps/*/include/*.hrl) rebar.config rebar.config.script

# Nothing here may read standard input: an invitation waits there (make join SECRET=-).
_build/.compiled: $(ERLANG_SOURCES) | setup
	@QUIET=1 rebar3 compile </dev/null
	@touch $@

build: setup _build/.compiled ## compile the Erlang applications

demo: build ## draw PROMPT on a cluster of NODES nodes on this machine, then stop it
	@$(PY) scripts/cluster.py demo

up: build ## start NODES nodes on this machine and leave them running
	@$(PY) scripts/cluster.py up

status: build ## print the running cluster: nodes, experts, generations
	@$(PY) scripts/cluster.py status

top: setup ## watch the cluster in the terminal (q quits); NODE=http://HOST:PORT for another one
	@$(PY) -m baguette top $${NODE:+--node "$$NODE"}

events: build ## print what happened lately; ID=... tells the story of one generation
	@$(PY) scripts/cluster.py events

token: build ## print a token for the HTTP API, made for NAME=... (default)
	@$(PY) scripts/cluster.py token

shell: build ## an Erlang shell on a running node (q(). leaves it, the node goes on)
	@$(PY) scripts/cluster.py shell

down: ## stop what `make up` started
	@[ -x $(PY) ] || { echo 'nothing is running here'; exit 0; }; $(PY) scripts/cluster.py down

# --- this machine as a node of a cluster ---------------------------------------------------------

doctor: build ## check whether this machine can join a cluster, and say what to type where not
	@$(PY) scripts/node.py doctor

join: build ## join the cluster of this tailnet, or that of PEERS=host1,host2
	@$(PY) scripts/node.py join

leave: ## finish what others asked of this node, tell them, and end it
	@[ -x $(PY) ] || { echo 'this machine has not joined'; exit 0; }; $(PY) scripts/node.py leave

invite: build ## print the line that brings the next machine into this cluster
	@$(PY) scripts/node.py invite

# --- measuring and training ----------------------------------------------------------------------

bench: bench-step bench-throughput bench-prediction ## these three, one after the other (an hour)

bench-step: build ## a step of a cluster against one process, and where its time goes (2 minutes)
	@$(PY) scripts/bench.py

bench-cluster: build ## what clusters of 8 and 64 nodes cost at rest, comings, goings (15 minutes)
	@$(PY) scripts/bench_cluster.py

bench-reliability: build ## what a fault costs a picture, fault by fault (35 minutes)
	@$(PY) scripts/bench_reliability.py

bench-http: build ## what HTTP costs a node: requests, watchers, memory, rude clients (15 minutes)
	@$(PY) scripts/bench_http.py

bench-throughput: build ## many pictures at once: scaling, links, peers, failover (55 minutes)
	@$(PY) scripts/bench_throughput.py

plots: setup ## draw the plots of docs/PERFORMANCE.md anew, from out/ as measured last
	@$(PY) scripts/plots.py

bench-prediction: build ## how well is foretold how long a picture takes (6 minutes)
	@$(PY) scripts/bench_prediction.py

train-mini: setup ## make weights/paris-mini again (about 90 minutes on two cores)
	@nice -n 19 $(PY) scripts/train_mini.py

weights: setup ## fetch the published Paris (about 10 GB); EXPERTS=0,3 REPO=owner/name DIR=...
	@$(PY) -m baguette weights $${EXPERTS:+--experts "$$EXPERTS"} $${REPO:+--repo "$$REPO"} \
		$${DIR:+--dir "$$DIR"}

# --- checks and tests ----------------------------------------------------------------------------

# Runs a command and shows what it printed only where it failed.
quiet = out=$$($(1) 2>&1) || { printf '%s\n' "$$out"; exit 1; }

check: check-erlang check-style check-python check-shell ## compiler, xref, dialyzer, style, types

check-erlang: build
	@$(call quiet,rebar3 xref)
	@$(call quiet,rebar3 dialyzer)

check-style: setup
	@$(PY) scripts/check_style

# By module: a script's first line would name the place this checkout was made at.
LINT_IMPORTS := from importlinter.cli import lint_imports_command as main; main()

check-python: setup
	@$(PY) -m ruff check --quiet --config $(PYPROJECT) $(PYTHON_CODE)
	@$(PY) -m ruff format --quiet --check --config $(PYPROJECT) $(PYTHON_CODE)
	@MYPYPATH=python_worker:scripts $(PY) -m mypy --no-error-summary --config-file $(PYPROJECT) \
		python_worker/baguette scripts/check_style $(wildcard scripts/*.py)
	@$(call quiet,cd python_worker && ../$(PY) -c "$(LINT_IMPORTS)" --config pyproject.toml --no-cache)

check-shell:
	@shellcheck $(SHELL_CODE)

test: check test-erlang test-python test-cluster ## everything: what .ci/run calls

# What their workers print as they are killed would bury what failed, and so would what passed
# after it.
test-erlang: build ## EUnit, PropEr and Common Test of the applications
	@rebar3 do eunit, ct --readable true 2>build/test-erlang.log | tee build/test-erlang.txt || { \
		grep --text --after-context 12 FAILED build/test-erlang.txt || true; \
		echo 'failed; what the tests'\'' own processes printed: build/test-erlang.log'; exit 1; }

test-python: setup ## pytest of the package
	@cd python_worker && ../$(PY) -m pytest tests

test-cluster: build ## whole clusters on this machine against the single-process pipeline
	@scripts/setup browser </dev/null
	@$(PY) -m pytest -c $(PYPROJECT) tests

screenshots: build ## take the pictures of the dashboard in docs/images anew
	@scripts/setup browser </dev/null
	@SCREENSHOTS=docs/images $(PY) -m pytest -c $(PYPROJECT) tests/test_dashboard.py

test-chaos: build ## twenty seeds of kills and cancels (CHAOS="--seed 7" plays one, --help tells)
	@PYTHONPATH=python_worker:tests:scripts $(PY) -m chaos $${CHAOS:---seeds 20}

fmt: setup ## format Python, put imports in order
	@$(PY) -m ruff check --quiet --fix --select I --config $(PYPROJECT) $(PYTHON_CODE)
	@$(PY) -m ruff format --config $(PYPROJECT) $(PYTHON_CODE)

clean: ## remove what was built (not .venv, not out/, not weights)
	@rm -rf _build build
