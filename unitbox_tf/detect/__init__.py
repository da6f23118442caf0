"""From images to detections: the graph, its decoders, and the detector that applications use."""
