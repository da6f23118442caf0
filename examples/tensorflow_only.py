"""Objects in a photo, with an exported SavedModel and TensorFlow alone.

python examples/tensorflow_only.py SAVED_MODEL photo.jpg
"""

import sys

import tensorflow as tf

folder, photo = sys.argv[1:]
model = tf.saved_model.load(folder)
names = [name.decode() for name in model.class_names().numpy()]

found = model.detect_encoded(tf.constant([tf.io.read_file(photo).numpy()]))
count = int(found["num_detections"][0])
boxes, scores, classes = (found[key][0, :count].numpy() for key in ("boxes", "scores", "classes"))
for i in range(count):
    print(names[classes[i]], f"{scores[i]:.3f}", *(f"{side:.1f}" for side in boxes[i]))
