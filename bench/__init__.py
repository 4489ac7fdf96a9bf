"""Benchmarks: `make bench` runs all, `python -m bench.NAME` one. Each prints its figures with the floor beside them."""
