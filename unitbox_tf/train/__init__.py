"""From annotations to a trained network."""
