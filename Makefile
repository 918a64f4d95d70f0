.DEFAULT_GOAL := help
PYTHON_IN_VENV := .venv/bin/python
ARGS ?=

.PHONY: help setup setup-dev has-venv demo run test test-matrix generate lint bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## make the environment (seconds once it is there)
	@./setup_environment.sh

setup-dev:
	@./setup_environment.sh --dev

# Checks and generators install nothing.
has-venv:
	@test -x $(PYTHON_IN_VENV) || { echo "Error: .venv is not there" >&2; echo "  fix:   make setup-dev" >&2; exit 2; }

demo: setup ## the whole pipeline on a model and data made here: no GPU, no hub
	$(PYTHON_IN_VENV) run_week1.py --config configs/demo.yaml $(ARGS)

run: setup ## the real model and data on a CUDA GPU; settings with ARGS="--set model.dtype=bfloat16"
	$(PYTHON_IN_VENV) run_week1.py $(ARGS)

test: setup-dev ## the whole test suite
	OMP_NUM_THREADS=1 $(PYTHON_IN_VENV) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder \
	    --max-worker-restart 0 $(ARGS)

test-matrix: ## the suite on Python 3.10, 3.12 and 3.13 with chosen libraries; ARGS=--plan
	@setup/test_matrix.sh $(ARGS)

generate: has-venv ## JSON Schemas, docs/METRICS.md and docs/SETTINGS.md, from the records
	$(PYTHON_IN_VENV) -m utils.schema.generate

lint: has-venv ## linter, formatter, types and import layers
	$(PYTHON_IN_VENV) -m ruff check .
	$(PYTHON_IN_VENV) -m ruff format --check .
	$(PYTHON_IN_VENV) -m mypy
	.venv/bin/lint-imports --no-logo

NOT_BENCHMARKS := $(addprefix benchmarks/,common.py workloads.py optimum_peer.py gpu_check.py)
BENCHMARKS := $(filter-out $(NOT_BENCHMARKS), \
	$(sort $(wildcard benchmarks/[a-z]*.py)))

bench: setup-dev ## every benchmark in benchmarks/, in turn; ARGS=--quick shows in minutes that they run
	@missed=; for file in $(BENCHMARKS); do echo "== $$file"; $(PYTHON_IN_VENV) $$file $(ARGS) || missed="$$missed $$file"; done; \
	if [ -z "$(strip $(BENCHMARKS))" ]; then echo "benchmarks/ holds no benchmark yet."; fi; \
	if [ -n "$$missed" ]; then echo "Not all went well in:$$missed"; exit 1; fi

clean: ## remove caches and build leftovers; never data/, results/ or .venv
	find . \( -path ./.venv -o -path ./data -o -path ./results -o -path ./.git \) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage*
