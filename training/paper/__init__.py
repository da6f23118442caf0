"""The paper's experiments: `python -m training.paper --help`."""
