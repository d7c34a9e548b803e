# make demo   install into .venv, run the demo experiment, print its table        make test   run the tests
# make lint   check style                                                         make clean  remove what was made
# make bench-pelvis   build the frozen bench, check its sums, run every experiment: hours on two cores; SIZE=128: the headline
# make benchmark   our projectors beside the simulators that people can install: results/benchmarks/projectors.csv
# make bench-gpu   backends and training step beside plain PyTorch, then both benches, on an NVIDIA GPU: NOT YET RUN THERE
PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test lint mutants benchmark bench-gpu bench-pelvis clean

demo: .venv/demo
	snakemake --cores 8 --use-conda
	@echo "report: $(CURDIR)/results/report/index.html"

test: .venv/test
	python -m pytest -m "not gpu" -n 2

lint: .venv/test
	ruff check . && ruff format --check .

mutants: .venv/test
	python tests/mutants.py

# Stopped, it goes on where it stood. EXPERIMENTS="decoders transfer" runs some of them, CORES=8 uses more cores;
# OPTIONS="--config 'judge={kind: nnunet, size: stock}'" judges by nnU-Net's own plan: a day of training on a GPU.
SIZE ?= 64
BENCH = bench_pelvis_$(SIZE)
ifeq ($(SIZE),64)
EXPERIMENTS ?= models recipes decoders structures transfer
endif
CORES ?= 2
bench-pelvis: .venv/nnunet
	snakemake shards --cores $(CORES) --directory results/$(BENCH) --configfile resources/configs/$(BENCH).yaml
	@cd results/$(BENCH) && sha256sum --check --quiet $(CURDIR)/resources/$(BENCH).sha256 || \
		echo "note: without AVX-512 the last bits of the cone's X-rays are others; CTs and labels are not."
	snakemake --cores $(CORES) --directory results/$(BENCH) --configfile resources/configs/$(BENCH).yaml \
		$(EXPERIMENTS:%=resources/configs/experiments/%.yaml) $(OPTIONS)
	@echo "report: $(CURDIR)/results/$(BENCH)/results/report/index.html"

# OPTIONS="--quick" takes two minutes, OPTIONS="--only warm cold" some sections, OPTIONS="--help" lists all.
benchmark: .venv-benchmark/ready
	.venv-benchmark/bin/python -m benchmarks.projectors $(OPTIONS)

# tiny-cuda-nn wants the nvcc of torch's CUDA and minutes; its build imports torch, so pip must not isolate it.
bench-gpu: .venv/demo
	@python -c "import torch; torch.cuda.is_available() or exit('bench-gpu: torch sees no CUDA device')"
	python -m pip install --quiet ninja packaging setuptools wheel
	python -c "import tinycudann" 2>/dev/null || python -m pip install --no-build-isolation \
		"git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch" || \
		echo "note: tiny-cuda-nn cannot be built here; the other backends are measured without it."
	python -m benchmarks.encoding --device cuda
	python -m benchmarks.step --device cuda --bfloat16
	$(MAKE) bench-pelvis
	$(MAKE) bench-pelvis SIZE=128

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

.venv/nnunet: .venv/demo
	python -m pip install --quiet --constraint constraints.txt torchvision
	python -m pip install --quiet --constraint constraints.txt --editable ".[nnunet]"
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
