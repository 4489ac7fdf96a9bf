"""Benchmarks of the runner; each module is a command: `python -m bench.runs.NAME`."""
