"""Training, the paper's experiments and measurements; run from the repository's root, and not installed."""
