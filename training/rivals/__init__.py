"""Compares our face detectors with others: `python -m training.rivals --help`."""
