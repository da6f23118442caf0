"""Our face detectors beside others: `python -m training.rivals --help`."""
