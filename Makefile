# What people type. Everything that is installed goes into .venv of this checkout and target/.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

setup: $(BIN)/python
	$(BIN)/pip install -q -r requirements/dev.txt
	cargo build --release --locked -p bridgehead
	mkdir -p bridgehead.data/scripts && install -m 755 target/release/bridgehead bridgehead.data/scripts/
	$(BIN)/maturin build --release --locked --quiet --out target/wheels --interpreter $(BIN)/python
	$(BIN)/pip install -q --force-reinstall --no-deps target/wheels/bridgehead-*.whl
