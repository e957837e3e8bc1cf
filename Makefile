# Every target makes .venv itself and reuses it. See CONTRIBUTING.md.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
RUN    := PYTHONDONTWRITEBYTECODE=1 $(PY)

.PHONY: setup demo test test-full families lint docs figures picture bench wheel experiments clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Development needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 6; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --constraint constraints.txt torch
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(RUN) -m logoformer demo -o demo

test: setup lint
	$(RUN) -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

# Both published families at full size: a quarter of an hour on one core, 8 GB of memory. What is measured is in
# benchmarks/results/families.json: `make families`.
test-full: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m full -n 0

families: setup
	OMP_NUM_THREADS=1 $(RUN) -m logoformer.studies.families

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	mkdir -p build/types && ln -sfn ../.. build/types/logoformer
	MYPYPATH=build/types $(PY) -m mypy -p logoformer

# The site, in build/docs: strict (a dead link, anchor or missing page fails) and without a network.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

# README's claim and table of figures, from benchmarks/results/.
figures: setup
	$(RUN) docs/tools/figures.py

# The pictures of README and docs/architecture.md.
picture: setup
	test -d demo/face.bundle || $(MAKE) demo
	$(RUN) docs/tools/picture.py demo/face.bundle
	$(RUN) docs/tools/drawings.py

# One interleaved run of every peer on `base`, FP32. The table of docs/benchmarks.md is printed from
# the report, never by hand.
bench: setup
	rm -rf build/bench
	$(RUN) -m logoformer init --preset base -o build/bench/base
	$(RUN) -m logoformer export build/bench/base -o build/bench/base.bundle --precisions fp32 --clips 8
	$(RUN) -m logoformer bench build/bench/base.bundle --iterations 140 -o build/bench/cpu-base.json --readme docs/benchmarks.md
	cp build/bench/cpu-base.json benchmarks/results/cpu-base.json
	$(RUN) docs/tools/figures.py

# What a Jetson receives. Stale modules of an old build/ would be packed with it, so that goes first.
wheel: setup
	rm -rf build/lib build/bdist.* dist *.egg-info
	$(PY) -m build --wheel --outdir dist .
	rm -rf build/lib build/bdist.*

# What docs/ and README show of training and INT8; hours on two cores. What a file in benchmarks/results/ already has of the
# ablations is not trained again.
experiments: setup
	$(RUN) -m logoformer.studies.experiments
	$(RUN) -m logoformer.studies.ablations
	$(RUN) -m logoformer.studies.complexity
	$(RUN) -m logoformer.studies.training
	test -d demo/checkpoint || $(MAKE) demo
	$(RUN) -m logoformer.studies.int8 demo/checkpoint
	$(RUN) -m logoformer.studies.faces demo/face.bundle

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
