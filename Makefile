PYTHON ?= python3
BIN := .venv/bin
NANOGPT ?=
TORCH ?= cpu
CORPUS ?= data/wikipedia

.PHONY: demo test test-slow soak frozen bench-cpu bench-gpu bench-toy fit check docs dist docker clean

demo: .venv/run.done  ## train a small GPT for three minutes and show what it writes
	$(BIN)/daybreak demo

test: .venv/check.done  ## the tests, under five minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: .venv/check.done  ## what takes longer
	$(BIN)/python -m pytest -m slow

soak: .venv/check.done  ## kill a run over a hundred times and see that nothing is lost, under a quarter of an hour
	$(BIN)/python tests/soak.py --kills 100

frozen: .venv/check.done  ## before a release: small runs of this version, for later ones to load in their tests
	$(BIN)/python tests/frozen/make.py

bench-cpu: .venv/bench.done  ## against nanoGPT's code (NANOGPT=checkout) and transformers, on a CPU: hours; stop it and go on at will
	$(BIN)/python benchmarks/cpu.py $(if $(NANOGPT),--nanogpt $(NANOGPT))

bench-gpu: .venv/check.done  ## on one H200 within nine minutes; data/bench-gpu is made by: python benchmarks/gpu.py prepare
	$(BIN)/python benchmarks/gpu.py

bench-toy: .venv/check.done  ## the same as bench-gpu in sizes of seconds, on a CPU
	$(BIN)/python benchmarks/gpu.py --toy

fit: .venv/fit.done  ## the laws behind plan and auto, from runs of our own: CORPUS is prepared as fit/grid.py says; an hour and a half
	$(BIN)/python fit/grid.py --corpus $(CORPUS)
	$(BIN)/python fit/laws.py

docs: .venv/check.done  ## the documentation as a site, in build/site: strict, a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: .venv/check.done  ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

dist: .venv/check.done  ## what would be published, into dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

docker:  ## an image, where there is a Docker engine; TORCH=cu130 makes one for NVIDIA GPUs
	docker build --build-arg TORCH=$(TORCH) --tag daybreak:$(TORCH) .

clean:
	rm -rf .venv dist

# torch goes first and pinned, so that no later resolution picks another build.
.venv/torch.done: constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	touch $@

.venv/run.done: .venv/torch.done pyproject.toml
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.'
	touch $@

.venv/check.done: .venv/torch.done pyproject.toml
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[check]'
	touch $@ .venv/run.done

.venv/fit.done: .venv/check.done
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fit]'
	touch $@

.venv/bench.done: .venv/check.done
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@
