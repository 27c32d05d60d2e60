# What people type. Everything that is installed goes into .venv of this checkout and target/.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export CARGO_TERM_COLOR ?= never

.PHONY: demo test check setup examples clean

demo: examples
	$(BIN)/bridgehead run examples/surrogate.py

test: setup
	cargo test --workspace --locked --quiet
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest tests/faults

check: setup
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(BIN)/ruff check launcher/python examples tests
	$(BIN)/mypy
	$(BIN)/pyright

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The wheel carries the extension and the program; it is built and installed as a user would get it.
setup: $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	cargo build --release --locked --quiet -p bridgehead
	install -D -m 755 target/release/bridgehead bridgehead.data/scripts/bridgehead
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/maturin build --release --locked --quiet --out target/wheels --interpreter $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps target/wheels/bridgehead-*.whl

examples: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/examples.txt

clean:
	rm -rf $(VENV) target bridgehead.data
