.PHONY: setup train test check docs bench faults clean
PYTHON ?= python3
BIN := .venv/bin
# the folder with MNIST/raw and eggs_candling for the tests on real data, where there is one
export GAN_LIGHTNING_DATA

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "Python 3.11 to 3.13 is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -q -e '.[dev]'
	touch $@

train: setup
	$(BIN)/python train.py experiment=egg trainer.accelerator=cpu trainer.max_time=00:00:05:00

test: setup
	@# each of the two workers with one thread: four threads on two cores would get into each other's way
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m benchmarks.house

docs: .venv/docs
	$(BIN)/mkdocs build --strict --quiet

.venv/docs: .venv/ready
	$(BIN)/pip install --disable-pip-version-check -q -e '.[docs]'
	touch $@

bench: setup
	$(BIN)/python -m benchmarks

faults: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.faults

clean:
	rm -rf .venv data/egg data/cache
