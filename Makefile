# make demo   install into .venv, run the demo experiment, print its table        make test   run the tests
# make lint   check style                                                         make clean  remove what was made
# make benchmark   our projectors beside the simulators that people can install: results/benchmarks/projectors.csv
PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test test-all lint mutants benchmark clean

demo: .venv/demo
	snakemake --cores 8 --use-conda
	@echo "report: $(CURDIR)/results/report/index.html"

test: .venv/test
	python -m pytest -m "not gpu" -n 2

lint: .venv/test
	ruff check . && ruff format --check .

mutants: .venv/test
	python tests/mutants.py

# OPTIONS="--quick" takes two minutes, OPTIONS="--only warm cold" some sections, OPTIONS="--help" lists all.
benchmark: .venv-benchmark/ready
	.venv-benchmark/bin/python -m benchmarks.projectors $(OPTIONS)

# torch first: whatever comes later must find it and leave it alone (constraints.txt pins it).
.venv/torch: constraints.txt
	$(PYTHON) -m venv .venv
	python -m pip install --quiet --constraint constraints.txt torch
	touch $@

.venv/demo: .venv/torch pyproject.toml
	python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/test: .venv/demo
	python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

.venv-benchmark/ready: constraints.txt pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv .venv-benchmark
	.venv-benchmark/bin/python -m pip install --quiet --constraint constraints.txt torch torchvision
	.venv-benchmark/bin/python -m pip install --quiet --constraint constraints.txt --editable .
	grep -E "^torch" constraints.txt > .venv-benchmark/torch.txt
	.venv-benchmark/bin/python -m pip install --quiet --constraint .venv-benchmark/torch.txt --requirement benchmarks/requirements.txt
	touch $@

clean:
	rm -rf .venv .venv-benchmark results .snakemake build *.egg-info
