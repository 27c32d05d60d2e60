"""Bridgehead against its peers, through public interfaces only; `python -m versus --help`, explained in `benchmarks/README.md`."""
