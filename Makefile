# Everything a person or CI runs. `make` alone prints the targets.

VENV := .venv
BIN := $(VENV)/bin
# The constraints are the set tested on 3.11; a newer Python will do.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo $$python && break; done)
# Touched when the environment holds what pyproject.toml asks for.
INSTALLED := $(VENV)/.installed
# More options for pytest: make test PYTEST_ARGS="-k tiling -x"; to debug, "-n 0 --pdb"
PYTEST_ARGS ?=
# A process of tests for each core; a slow test may take some GiB.
PARALLEL := -n logical --maxprocesses 4 --dist worksteal
# Real labelled scenes, which are no part of the repository.
SHARED_DATA := $(or $(GEOSEG_SHARED_DATA),../shared/data)
# CUDA tests skip themselves without a device, and say so. The network is never part of
# a default run.
FAST := not slow and not network
SLOW := slow and not network

.DEFAULT_GOAL := help
.PHONY: help install test test-slow test-all test-gpu lint format types check \
	mutants soak bench demo docs wheel clean cuda-report

help: ## Print this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED) ## Create .venv and install geoseg with its tested dependencies

# The native operators are part of it: their sources count, too.
$(INSTALLED): pyproject.toml setup.py constraints.txt \
		$(shell find ops -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo \
		"no Python >= 3.11 with venv; install one or call make PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt setuptools torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation \
		-e '.[dev,train,timm,slurm,docs]'
	@touch $@

test: $(INSTALLED) ## Run the fast tests
	$(BIN)/python -m pytest -m "$(FAST)" $(PARALLEL) $(PYTEST_ARGS)

test-slow: $(INSTALLED) ## Run the slow tests
	$(BIN)/python -m pytest -m "$(SLOW)" $(PARALLEL) $(PYTEST_ARGS)

test-all: $(INSTALLED) ## Run all tests but those that need the network
	$(BIN)/python -m pytest -m "not network" $(PARALLEL) $(PYTEST_ARGS)

test-gpu: $(INSTALLED) ## Run the CUDA tests; without a device they fail
	GEOSEG_REQUIRE_CUDA=1 $(BIN)/python -m pytest -m needs_cuda $(PYTEST_ARGS)

lint: $(INSTALLED) ## Check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(INSTALLED) ## Format, and repair what can be repaired
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(INSTALLED) ## Check types of package and tests
	$(BIN)/mypy

check: lint types test ## What a change must pass

cuda-report: $(INSTALLED) ## Print what nvcc made of the CUDA kernels, with gates
	$(BIN)/python tests/cuda_static_report.py

mutants: $(INSTALLED) ## Break each contract on purpose; a test must notice
	$(BIN)/python tests/mutants/run.py

soak: $(INSTALLED) ## Kill worker, scheduler and client 20 times each
	$(BIN)/python tests/soak.py --json benchmarks/results/soak.json

# RIVALS: a Python with the polygonizers that want 3.12, see bench_vectorize.py.
bench: $(INSTALLED) demo/scene/test_tiled.tif ## Run the long proofs; figures go to benchmarks/results/
	$(BIN)/python benchmarks/bench_memory.py --json benchmarks/results/memory.json
	$(BIN)/python benchmarks/bench_archive.py --data $(SHARED_DATA) \
		--json benchmarks/results/archive.json
	$(BIN)/python benchmarks/bench_scheduler.py \
		--json benchmarks/results/scheduler.json
	$(BIN)/python benchmarks/score_builtin.py --data $(SHARED_DATA)/dubai-mbrsc \
		--zero-vit --json benchmarks/results/builtin.json
	$(BIN)/python benchmarks/bench_ms_deform_attn.py \
		--json benchmarks/results/ms_deform_attn.json
	$(BIN)/python benchmarks/bench_vectorize.py --prototypes $(SHARED_DATA)/../prototypes \
		$(if $(RIVALS),--rivals $(RIVALS)) --json benchmarks/results/vectorize.json
	$(BIN)/python benchmarks/bench_cog.py --prototypes $(SHARED_DATA)/../prototypes \
		$(if $(RIVALS),--maker $(RIVALS)) --json benchmarks/results/cog.json
	$(BIN)/python benchmarks/bench_read.py --json benchmarks/results/read.json
	$(BIN)/python benchmarks/bench_blend.py --prototypes $(SHARED_DATA)/../prototypes \
		--json benchmarks/results/blend.json
	$(BIN)/python benchmarks/bench_chain.py --json benchmarks/results/chain.json
	$(BIN)/python benchmarks/bench_utilization.py --data $(SHARED_DATA)/dubai-mbrsc \
		--json benchmarks/results/utilization.json
	$(BIN)/python benchmarks/bench_models.py --data $(SHARED_DATA)/dubai-mbrsc \
		--json benchmarks/results/models.json
	$(BIN)/python benchmarks/bench_explain.py --photograph demo/scene/test_tiled.tif \
		--json benchmarks/results/explain.json

# A real 0.25 m aerial photograph (Netherlands, EPSG:28992) that a PyPI wheel carries.
demo/scene/test_tiled.tif: | $(INSTALLED)
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: \
		--dest demo/wheels deepforest==1.5.2
	mkdir -p $(@D)
	$(BIN)/python -c "import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile( \
		sys.argv[1]).read('deepforest/data/test_tiled.tif'))" \
		demo/wheels/deepforest-1.5.2-*.whl > $@.part
	mv $@.part $@

demo: $(INSTALLED) demo/scene/test_tiled.tif ## Segment a real aerial photograph
	$(BIN)/geoseg segment demo/scene/test_tiled.tif -o demo/out --overwrite
	$(BIN)/geoseg preview demo/out
	@echo "Results are in demo/out:"
	@find demo/out -type f | sort | sed 's/^/  /'

docs: $(INSTALLED) demo/scene/test_tiled.tif ## Run the notebooks; build web pages in build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(INSTALLED) ## Build the wheel in dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation -w dist .

clean: ## Remove what was built, the environment apart
	rm -rf build dist demo geoseg/_C.abi3.so *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find geoseg tests -name __pycache__ -type d -prune -exec rm -rf {} +
