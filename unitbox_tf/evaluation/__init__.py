"""Judges: detections and annotations in, metrics out. Each protocol has a module. None imports TensorFlow."""
