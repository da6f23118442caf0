"""Memory and time of decoding, measured in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each file that is refused or has one small frame, through both decoders, a PIL image, and the graph of exports.
REFUSED = """
import io, resource, time
import numpy as np
import tensorflow as tf
from PIL import Image
from tests.helpers import hostile
from tests.fuzz import images as fuzz

every, refusals = fuzz.ways()
files = {name: encoded for name, (encoded, _) in hostile.files().items()}
files["a GIF of 2,000 frames"] = hostile.gif_frames(1000, 2000)
files["a PNG whose text becomes 400 MB"] = hostile.packed_text(400)
files["a PNG whose text states 1.9 GB"] = hostile.png_claims_a_text()
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
for name, encoded in files.items():
    for way, find in every.items():
        if way == "PIL image" and "share" in name:
            continue  # `Image.open` of the caller takes the memory
        before, start = peak(), time.perf_counter()
        try:
            outcome = f"{len(find(encoded))} detections"
        except refusals as error:
            outcome = type(error).__name__
        grown = peak() - before
        assert grown < 150, (name, way, grown)
        print(name, "|", way, "|", outcome, "|", grown, "MB")
"""

# The third of five images needs more memory than the process may take. Threads are started before, and share one heap:
# each heap takes 64 MB of addresses, and the C library aborts a process where a new thread gets no memory of its own.
LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf import images
from unitbox_tf.detect import folders
from unitbox_tf.train import reading
from tests.helpers import hostile
from tests.helpers.images import encoded_as, picture
from tests.fuzz import images as fuzz

form, folder = sys.argv[1], Path(sys.argv[2])
every, _ = fuzz.ways(max_pixels=50_000_000)
large = hostile.flat_png(7000) if form == "PNG" else hostile.flat(form, 7000)
photos = folder / "photos"
photos.mkdir()
for index in range(5):
    photos.joinpath(f"{index}.{form.lower()}").write_bytes(encoded_as(form, picture()))
detector = every["TensorFlow"]
annotations = [Annotation(p.name, p, np.zeros((0, 4))) for p in sorted(photos.iterdir())]
folders.detect_into(detector, [photos], folder / "warm-up")
list(detector.many(photos))
list(reading.from_annotations(annotations))
photos.joinpath(f"2.{form.lower()}").write_bytes(large)
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmSize")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + (110 << 20), -1))
summary = folders.detect_into(detector, [photos], folder / "out")
assert (summary.images.images, summary.images.broken) == (5, 1), summary
[problem] = summary.problems.found
assert "memory" in problem.message.lower(), problem
assert problem.where.endswith(f"2.{form.lower()}")
problems = Problems(logged=False)
assert len(list(detector.many(photos, problems=problems))) == 4
problems = Problems(logged=False)
sides = [len(image) for image, _ in reading.from_annotations(annotations, problems=problems)]
assert sides.count(1) == 1 and sides[2] == 1, sides  # a black pixel
assert len(problems.found) == 1
print("went on", problem)
"""


def run(code, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")
def test_files_that_ask_for_too_much_take_no_memory():
    lines = run(REFUSED).splitlines()
    frames = [line for line in lines if "2,000 frames" in line]
    assert len(frames) == 4
    assert all("detections" in line for line in frames)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_an_image_for_which_memory_does_not_suffice_is_a_problem_of_that_image(form, tmp_path):
    assert "went on" in run(LIMITED, form, tmp_path, MALLOC_ARENA_MAX="1")
