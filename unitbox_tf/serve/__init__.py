"""The server of `unitbox serve`: one detector, by the protocols of TensorFlow Serving and Open Inference (KServe v2).

`question` holds what both protocols share. `tensorflow_rest` and `open_inference` translate requests and answers. The
`worker` searches photos, and `application` bounds what clients may ask for.
"""
