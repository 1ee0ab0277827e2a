"""Public placement workloads: a reader for each format; `python -m benchmarks.workloads` solves a file."""
