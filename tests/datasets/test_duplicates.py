import dataclasses
import io
import os

import cv2
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from unitbox_tf import datasets, registry
from unitbox_tf.datasets import duplicates, synthetic
from unitbox_tf.datasets.duplicates import Repeat
from unitbox_tf.files import Part
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation


def annotation(image, name="a"):
    return Annotation(name, image, np.zeros([0, 4]))


def scene(seed, height=240, width=320):
    """An image with structure of all sizes, different for each seed."""
    generator = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for cells in (3, 6, 12, 24):
        coarse = generator.uniform(-1, 1, (cells, cells, 3))
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / cells**0.5
    return np.clip(128 + 90 * image, 0, 255).astype(np.uint8)


def jpeg(image, quality=95):
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def copies(image):
    height, width = image.shape[:2]
    yield jpeg(image, 30)
    yield cv2.imencode(".png", image)[1].tobytes()
    yield jpeg(cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    yield jpeg(cv2.resize(image, (2 * width, 2 * height)))
    yield jpeg(cv2.resize(image, (416, 416)))  # as Roboflow stretches
    yield jpeg(np.clip(image * 1.15 + 5, 0, 255).astype(np.uint8))
    yield jpeg(image[height // 60 : -height // 60, width // 60 : -width // 60])


# Bytes ------------------------------------------------------------------------------------------


def test_the_same_bytes_are_found_in_files_parts_and_memory(tmp_path):
    content = b"x" * 1000 + b"first"
    (tmp_path / "a").write_bytes(content)
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").symlink_to("a")
    (tmp_path / "shard").write_bytes(b"before" + content + b"after")
    (tmp_path / "other").write_bytes(b"x" * 1000 + b"other")  # differs at the end
    (tmp_path / "start").write_bytes(b"y" + b"x" * 999 + b"first")  # and at the start
    images = [
        tmp_path / "a",
        tmp_path / "other",
        tmp_path / "b",
        tmp_path / "c",
        Part(tmp_path / "shard", 6, len(content)),
        content,
        tmp_path / "start",
        tmp_path / "a",
        b"",
        b"",
    ]
    found = duplicates.same_bytes([annotation(image) for image in images])
    assert found == [[0, 2, 3, 4, 5, 7], [8, 9]]


def test_a_file_that_is_absent_or_cut_off_repeats_nothing(tmp_path):
    (tmp_path / "short").write_bytes(b"abc")
    gone = Part(tmp_path / "short", 2, 5)
    images = [tmp_path / "gone", tmp_path / "gone", gone, gone, tmp_path / "nul\0"]
    assert duplicates.same_bytes([annotation(image) for image in images]) == []


def test_only_files_of_equal_length_are_opened(tmp_path, monkeypatch):
    for length in range(5):
        (tmp_path / str(length)).write_bytes(b"x" * length)
    monkeypatch.setattr(Part, "read", lambda *_: pytest.fail("a file was read"))
    files = [annotation(path) for path in sorted(tmp_path.iterdir())]
    assert duplicates.same_bytes(files) == []


@hypothesis.given(st.lists(st.binary(max_size=2), max_size=12), st.integers(0, 12))
def test_repeats_of_bytes_are_those_of_the_plain_definition(contents, boundary):
    boundary = min(boundary, len(contents))
    groups = duplicates.same_bytes([annotation(content) for content in contents])
    count = len(contents)
    within = [i for i in range(boundary) if contents[i] in contents[:i]]
    assert sorted(r.image for r in duplicates.repeats_of_bytes(groups, 0, boundary)) == within
    within = [i for i in range(boundary, count) if contents[i] in contents[boundary:i]]
    assert sorted(r.image for r in duplicates.repeats_of_bytes(groups, boundary, count)) == within
    shared = duplicates.shared_bytes(groups, boundary)
    expected = [i for i in range(boundary, count) if contents[i] in contents[:boundary]]
    assert sorted(repeat.image for repeat in shared) == expected
    for repeat in shared:
        assert contents[repeat.image] == contents[repeat.other]
        assert repeat.other < boundary


# Pixels -----------------------------------------------------------------------------------------


@st.composite
def hashes(draw):
    """Hashes of which some are near to others, and a mask of usable ones."""
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    count = draw(st.integers(0, 150))
    bits = generator.integers(0, 2, (max(1, count // 5), 256), np.uint8)[
        generator.integers(0, max(1, count // 5), count)
    ]
    for row in bits:
        flipped = generator.choice(256, generator.integers(0, 100), replace=False)
        row[flipped] ^= 1
    values = np.packbits(bits, axis=1).view(np.uint64).reshape(count, 4)
    return values, bits, generator.random(count) < 0.9


def brute_force(bits, mine, others, limit):
    for i in mine:
        near = [(int((bits[i] != bits[j]).sum()), j) for j in others(i)]
        near = [each for each in near if each[0] <= limit]
        if near:
            distance, j = min(near)
            yield Repeat(i, j, distance)


@hypothesis.given(hashes(), st.integers(0, 128), st.floats(0, 1))
def test_pairing_finds_what_comparing_bit_by_bit_finds(case, limit, share):
    values, bits, usable = case
    places = np.flatnonzero(usable).tolist()
    found = duplicates.repeats_of_pixels(values, usable, limit)
    expected = brute_force(bits, places, lambda i: [j for j in places if j < i], limit)
    assert found == list(expected)
    boundary = round(share * len(bits))
    found = duplicates.shared_pixels(values, usable, boundary, limit)
    before = [i for i in places if i < boundary]
    expected = brute_force(bits, [i for i in places if i >= boundary], lambda _: before, limit)
    assert found == list(expected)


def test_hashes_whose_bits_all_differ_are_far_apart():
    values = np.array([[0] * 4, [2**64 - 1] * 4], np.uint64)
    assert duplicates.repeats_of_pixels(values, np.ones(2, bool)) == []


def near(images):
    values, usable, flat = duplicates.hashes([annotation(image) for image in images])
    assert usable.all()
    assert not flat
    return duplicates.repeats_of_pixels(values, usable)


def test_copies_are_found_and_other_images_are_not():
    scenes = [scene(seed) for seed in range(40)]
    originals = [jpeg(image) for image in scenes]
    assert near(originals) == []
    made = list(copies(scenes[7]))
    found = near([*originals, *made])
    assert [repeat.image for repeat in found] == list(range(40, 40 + len(made)))
    assert near([synthetic.draw(number).image for number in range(60)]) == []


def test_a_copy_that_is_turned_by_its_header_is_found():
    image = Image.fromarray(scene(3))
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to display
    files = []
    for each, more in ((image, {}), (turned, {"exif": exif})):
        file = io.BytesIO()
        each.save(file, "JPEG", **more)
        files.append(file.getvalue())
    [repeat] = near(files)
    assert repeat.distance <= 8


@pytest.mark.parametrize(
    ("folder", "pairs"),
    # The pairs were looked at: the same scene, a moment later or from another crop.
    [
        ("other/bccd364", {("BloodImage_00037.jpg", "BloodImage_00038.jpg")}),
        (
            "other/facemask724",
            {
                ("maksssksksss369.jpg", "maksssksksss491.jpg"),
                ("maksssksksss468.jpg", "maksssksksss608.jpg"),
                ("maksssksksss623.jpg", "maksssksksss795.jpg"),
                ("maksssksksss636.jpg", "maksssksksss801.jpg"),
            },
        ),
        ("wider/val_640", set()),
    ],
)
def test_of_real_images_copies_are_found_and_others_are_not(data, folder, pairs):
    paths = sorted(path for path in data(folder).rglob("*.jpg"))
    images = [annotation(path) for path in paths]
    values, usable, _ = duplicates.hashes(images)
    found = duplicates.repeats_of_pixels(values, usable)
    names = {tuple(sorted(paths[i].name for i in (r.image, r.other))) for r in found}
    assert names == pairs
    for index in range(0, len(paths), 100):
        made = [annotation(copy) for copy in copies(cv2.imread(str(paths[index])))]
        more, all_usable, _ = duplicates.hashes(made)
        both = np.concatenate([values, more])
        mask = np.concatenate([usable, all_usable])
        shared = duplicates.shared_pixels(both, mask, len(paths))
        hits = [repeat for repeat in shared if repeat.other == index]
        assert len(hits) >= len(made) - 1  # a crop may lead elsewhere, and to nothing
        assert {repeat.image for repeat in hits} >= set(range(len(paths), len(mask) - 1))


def test_images_of_one_colour_are_listed_and_not_compared(tmp_path):
    flat = [np.full((50, 60, 3), shade, np.uint8) for shade in (0, 0, 128, 255)]
    noise = np.random.default_rng(0).integers(0, 4, (480, 640, 3), np.uint8)
    images = [jpeg(each) for each in (*flat, noise)]
    problems = Problems()
    broken = [b"no image", images[0][:200], tmp_path / "gone.jpg"]
    everything = [annotation(image, str(i)) for i, image in enumerate([*images, *broken])]
    everything.append(annotation(jpeg(scene(0))))
    _, usable, found = duplicates.hashes(everything, problems=problems)
    assert found == [0, 1, 2, 3, 4]
    assert usable.tolist() == [False] * 8 + [True]
    assert dict(problems.counts) == {"image that cannot be decoded": 3}


def test_images_in_shards_are_compared(tmp_path):
    made = [
        dataclasses.replace(synthetic.draw(0), image=jpeg(scene(seed)), name=f"{number}.jpg")
        for number, seed in enumerate((1, 2, 1))
    ]
    with_copy = [*made, dataclasses.replace(made[0], image=jpeg(scene(1), 40), name="copy.jpg")]
    registry.DATASETS["tfrecord"].write(with_copy, tmp_path / "shards", "train", ("object",))
    shards = datasets.open("tfrecord:shards#train", tmp_path).annotations()
    assert all(isinstance(each.image, Part) for each in shards)
    assert duplicates.same_bytes(shards) == [[0, 2]]
    values, usable, _ = duplicates.hashes(shards)
    assert [r.image for r in duplicates.repeats_of_pixels(values, usable)] == [2, 3]
