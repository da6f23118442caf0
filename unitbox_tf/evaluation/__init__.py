"""Judges: detections and annotations in, numbers out. One module a protocol. None of them imports TensorFlow."""
