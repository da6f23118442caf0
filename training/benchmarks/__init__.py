"""Speed, memory and parity of exports: `python -m training.benchmarks --help`."""
