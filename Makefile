# What people type. Everything that is installed goes into .venv of this checkout and target/.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export CARGO_TERM_COLOR ?= never

.PHONY: demo install-c test test-slurm test-mpi test-kubernetes test-hwloc soak check docs setup examples bench bench-quick bench-store bench-slurm bench-kubernetes bench-mpi clean

demo: examples
	$(BIN)/bridgehead run examples/surrogate.py

test: setup
	cargo test --workspace --locked --quiet
	cargo build --locked --quiet -p bridgehead-c
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest tests/faults

# On a virtual Slurm cluster of several nodes on this machine, as root. TESTS is handed on to pytest: TESTS=test_faults.py.
test-slurm: examples
	tests/slurm/run $(BIN)/python $(TESTS)

# With MPICH and Open MPI, of Debian and as wheels, as root; TESTS is handed on to pytest: TESTS=test_values.py.
test-mpi: setup
	tests/mpi/run $(TESTS)

# On a virtual Kubernetes of several nodes on this machine, as root; needs Go. TESTS is handed on to pytest: TESTS=test_faults.py.
# BRIDGEHEAD_TEST_CLUSTER=/var/lib/kubernetes-cluster takes a cluster that is up.
test-kubernetes: setup
	tests/kubernetes/run $(BIN)/python $(TESTS)

# With libhwloc, which Debian's packages bring; TESTS is handed on to cargo.
test-hwloc:
	tests/hwloc/run $(TESTS)

# Random work and kills on the stores of three nodes against a model, half of the time over each network; SEED=N runs the same again.
SEED ?= 1
MINUTES ?= 5
soak:
	BRIDGEHEAD_SOAK_SEED=$(SEED) BRIDGEHEAD_SOAK_MINUTES=$(MINUTES) \
		cargo test --locked --quiet -p bridgehead-store-node --test soak -- --nocapture

check: setup
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(BIN)/ruff check launcher/python examples benchmarks tests
	$(BIN)/ruff format --check launcher/python examples benchmarks tests
	$(BIN)/mypy
	$(BIN)/pyright

# The site in site/ and the crates' documentation in target/doc; a warning is an error.
docs: $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/docs.txt
	$(BIN)/zensical build --strict --clean
	test -s site/formats/pipeline-spec.schema.json
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked --quiet

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The wheel carries the extension and the program; it is built and installed as a user would get it.
setup: $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	cargo build --release --locked --quiet -p bridgehead
	install -D -m 755 target/release/bridgehead bridgehead.data/scripts/bridgehead
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/maturin build --release --locked --quiet --out target/wheels --interpreter $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps target/wheels/bridgehead-*.whl

# The C library (static and shared), its header, pkg-config file and Fortran module: make install-c PREFIX=$$HOME/.local
PREFIX ?= /usr/local
install-c:
	cargo build --release --locked --quiet -p bridgehead-c
	launcher/c/install target/release $(PREFIX)

# Bridgehead against its peers: benchmarks/README.md. BENCH is handed on, e.g. BENCH="--only noop --peers ray,dask".
bench: setup
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps target/wheels/bridgehead-*.whl
	cd benchmarks && ../.venv-bench/bin/python -m versus $(BENCH)

# Everything tiny, with the peers that .venv has: that all of it runs and gives right results.
bench-quick: setup
	cd benchmarks && ../$(BIN)/python -m versus --quick $(BENCH)
	cd benchmarks && ../$(BIN)/python -m store --quick
	cd benchmarks && ../$(BIN)/python -m mpi --quick

# The data plane against memory, plain sockets, Ray and DragonHPC, with the curve.
bench-store: setup
	cargo build --release --locked --quiet -p bridgehead-tcp --example compare
	cargo build --release --locked --quiet -p bridgehead-ucx --example perftest
	cargo build --release --locked --quiet -p bridgehead-store-node --example million
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt -r benchmarks/store/requirements.txt
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps target/wheels/bridgehead-*.whl
	cd benchmarks && ../.venv-bench/bin/python -m store $(BENCH)

# On a virtual Slurm cluster, as root: against a bare submission, an array of plain Slurm, and HyperQueue.
bench-slurm: examples
	cargo build --release --locked --quiet -p bridgehead-slurm --example submission
	$(PYTHON) -m venv .venv-hyperqueue
	-.venv-hyperqueue/bin/pip install --quiet --disable-pip-version-check -r benchmarks/slurm/requirements.txt
	tests/clusters/slurm/with $(BIN)/python $(BIN)/python benchmarks/slurm --hyperqueue .venv-hyperqueue/bin/python $(BENCH)

# On a virtual Kubernetes cluster, as root: gangs against bare Volcano jobs of the same pods; BENCH="--quick", for instance.
bench-kubernetes: setup
	tests/clusters/kubernetes/with $(BIN)/python $(BIN)/python benchmarks/kubernetes $(BENCH)

# MPI gangs against mpiexec, steps of srun, and files; the group slurm needs root.
bench-mpi: setup
	tests/mpi/install
	cd benchmarks && ../$(BIN)/python -m mpi $(BENCH)

examples: setup
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/examples.txt

clean:
	rm -rf $(VENV) .venv-bench .venv-hyperqueue target bridgehead.data
