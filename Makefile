# make demo   install into .venv, run the demo experiment, print its table        make test   run the tests
# make lint   check style                                                         make clean  remove what was made
PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test test-all lint mutants clean

demo: .venv/demo
	snakemake --cores 8 --use-conda
	@echo "report: $(CURDIR)/results/report/index.html"

test: .venv/test
	python -m pytest -m "not gpu" -n 2

lint: .venv/test
	ruff check . && ruff format --check .

mutants: .venv/test
	python tests/mutants.py

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

clean:
	rm -rf .venv results .snakemake build *.egg-info
