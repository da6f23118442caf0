import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from unitbox_tf.train import augment


def photo(height, width, box):
    """A grey image with a bright rectangle, and the rectangle as its only object."""
    image = np.full((height, width, 3), 100, np.uint8)
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1] = 250
    objects = {
        "boxes": tf.constant([box], tf.float32),
        "classes": tf.constant([0]),
        "ignore": tf.constant([False]),
    }
    return tf.constant(image), objects


def bright_box(image):
    """The box of the bright rectangle in an image: its edges are where half the brightness is."""
    bright = np.asarray(image).mean(axis=2) > 175
    ys, xs = np.nonzero(bright.any(axis=1))[0], np.nonzero(bright.any(axis=0))[0]
    return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1])


@st.composite
def photos(draw):
    height, width = draw(st.integers(40, 130)), draw(st.integers(40, 130))
    x0, y0 = draw(st.integers(0, width - 25)), draw(st.integers(0, height - 25))
    x1, y1 = draw(st.integers(x0 + 20, width)), draw(st.integers(y0 + 20, height))
    return (*photo(height, width, (x0, y0, x1, y1)), draw(st.integers(0, 2**30)))


@given(photos())
def test_random_crops_keep_the_box_on_the_object(scene):
    image, objects, seed = scene
    cropped, changed = augment.random_crop(image, objects, 64, (16.0, 60.0), 2.0, [seed, 1])
    assert cropped.shape == (64, 64, 3)
    assert changed["boxes"].shape == (1, 4)
    np.testing.assert_allclose(bright_box(cropped), changed["boxes"][0], atol=1.0)


@given(photos())
def test_boxes_are_stretched_with_their_photos(scene):
    image, objects, seed = scene
    cropped, changed = augment.random_crop(
        image, objects, 96, (30.0, 60.0), 2.0, [seed, 1], stretch=2.0
    )
    assert cropped.shape == (96, 96, 3)
    np.testing.assert_allclose(bright_box(cropped), changed["boxes"][0], atol=1.0)


def test_photos_are_stretched_both_ways_by_up_to_the_factor():
    image, objects = photo(300, 300, (100, 100, 150, 150))
    crop = tf.function(augment.random_crop)  # traced once, as in training
    ratios = []
    for seed in range(100):
        seeds = tf.constant([seed, 0])
        _, changed = crop(image, objects, 96, (30.0, 60.0), 2.0, seeds, stretch=1.8)
        x0, y0, x1, y1 = changed["boxes"][0].numpy()
        ratios.append((y1 - y0) / (x1 - x0))
    assert 1 / 1.85 < min(ratios) < 0.65
    assert 1.55 < max(ratios) < 1.85


@given(photos(), st.sampled_from([32, 50, 97]))
def test_fit_shrinks_the_whole_photo_and_its_boxes(scene, size):
    image, objects, _ = scene
    fitted, changed = augment.fit(image, objects, size)
    assert fitted.shape == (size, size, 3)
    np.testing.assert_allclose(bright_box(fitted), changed["boxes"][0], atol=1.0)
    scale = min(1, size / max(image.shape))
    np.testing.assert_allclose(changed["boxes"], objects["boxes"] * scale, atol=1.0)


def test_fit_leaves_a_small_photo_as_it_is(random):
    image = tf.constant(random.integers(0, 256, (20, 30, 3)), tf.uint8)
    objects = {"boxes": [[1.0, 2, 3, 4]], "classes": [0], "ignore": [False]}
    objects = {name: tf.constant(value) for name, value in objects.items()}
    fitted, changed = augment.fit(image, objects, 40, padding=(12.3, 45.6, 78.9))
    np.testing.assert_allclose(fitted[:20, :30], image, atol=1e-3)
    assert changed["boxes"].numpy().tolist() == [[1, 2, 3, 4]]
    np.testing.assert_allclose(fitted[30, 35], (12.3, 45.6, 78.9), rtol=1e-6)


def long_sides(image, objects, size, object_size, count):
    """The longer sides of the only object of an image in crops of several seeds."""
    crop = tf.function(augment.random_crop)  # traced once, as in training
    sides = []
    for seed in range(count):
        seeds = tf.constant([seed, 0])
        _, changed = crop(image, objects, size, object_size, 2.0, seeds)
        box = changed["boxes"].numpy()[0]
        sides.append(max(box[2:] - box[:2]))
    return np.sort(sides)


def test_the_sizes_of_objects_in_crops_are_uniform_in_the_logarithm():
    image, objects = photo(300, 300, (100, 100, 150, 160))
    low, high, count = 20.0, 80.0, 150
    sides = long_sides(image, objects, 96, (low, high), count)
    assert 18 < sides[0] < 22
    assert 76 < sides[-1] < 82
    # Kolmogorov-Smirnov: the largest distance of the two distributions, at a level of .01.
    expected = np.log(sides / low) / np.log(high / low)
    assert np.abs(expected - (np.arange(count) + 0.5) / count).max() < 1.63 / np.sqrt(count)


@pytest.mark.parametrize(("size", "smallest"), [(96, 30), (32, 10)])
def test_large_objects_become_small_as_long_as_the_image_fills_half_of_the_crop(size, smallest):
    """An image of 320 px is shrunk to 48 px at least. A part of a mosaic of nine has a third of this."""
    image, objects = photo(320, 320, (20, 20, 220, 180))
    sides = long_sides(image, objects, size, (4.0, 80.0), 40)
    assert sides[0] == pytest.approx(smallest, abs=1)
    assert (sides < 1.2 * smallest).mean() > 0.3


def test_what_is_cut_away_is_ignored_or_dropped():
    objects = {
        "boxes": tf.constant(
            [[0.0, 0, 10, 10], [-7, 0, 3, 10], [-9.5, 0, 0.5, 10], [60, 0, 70, 9]]
        ),
        "classes": tf.constant([0, 1, 2, 3]),
        "ignore": tf.constant([False] * 4),
    }
    kept = augment.clip_objects(objects, 50, 50)
    assert kept["classes"].numpy().tolist() == [0, 1]
    assert kept["ignore"].numpy().tolist() == [False, True]
    assert kept["boxes"].numpy().tolist() == [[0, 0, 10, 10], [0, 0, 3, 10]]


def test_flipping_twice_changes_nothing():
    image, objects = photo(50, 61, (3, 5, 33, 44))
    flips = 0
    for seed in range(20):
        once, changed = augment.random_flip(image, objects, [seed, 0])
        np.testing.assert_allclose(bright_box(once), changed["boxes"][0])
        flips += int((changed["boxes"][0] != objects["boxes"][0]).numpy().any())
        twice, back = augment.random_flip(once, changed, [seed, 0])
        np.testing.assert_array_equal(twice, image)
        np.testing.assert_array_equal(back["boxes"], objects["boxes"])
    assert 3 < flips < 17


def test_colour_changes_stay_within_range(random):
    image = tf.constant(random.uniform(0, 255, (20, 20, 3)), tf.float32)
    changed = augment.random_colour(image, 0.5, [1, 2]).numpy()
    assert 0 <= changed.min() <= changed.max() <= 255
    assert np.abs(changed - image).mean() > 1
    np.testing.assert_allclose(augment.random_colour(image, 0.0, [1, 2]), image, atol=1e-3)


@pytest.mark.parametrize("rows", [2, 3])
def test_a_mosaic_keeps_each_box_on_its_object(rows):
    count = rows**2
    scenes = [photo(48, 48, (5 + 2 * n, 7, 25 + 2 * n, 30 + n)) for n in range(count)]
    image, objects = augment.mosaic(
        tf.stack([tf.cast(image, tf.float32) for image, _ in scenes]),
        [objects for _, objects in scenes],
        rows,
    )
    assert image.shape == (rows * 48, rows * 48, 3)
    assert len(objects["boxes"]) == count
    for n, box in enumerate(objects["boxes"].numpy()):
        top, left = n // rows * 48, n % rows * 48
        part = image[top : top + 48, left : left + 48]
        np.testing.assert_array_equal(bright_box(part) + np.array([left, top] * 2), box)


@pytest.mark.parametrize("has_objects", [True, False])
def test_graphs_in_a_data_set_give_what_eager_gives(has_objects):
    image, objects = photo(120, 90, (20, 30, 70, 80))
    if not has_objects:
        objects = augment.select(objects, [False])

    def change(seed):
        seed = tf.stack([seed, 0])
        cropped, changed = augment.random_crop(image, objects, 48, (16.0, 40.0), 2.0, seed)
        return augment.random_flip(cropped, changed, seed)

    for seed, (in_graph, boxes) in enumerate(tf.data.Dataset.range(5).map(change)):
        eager, expected = change(tf.constant(seed, tf.int64))
        np.testing.assert_allclose(in_graph, eager, atol=1e-2)
        np.testing.assert_allclose(boxes["boxes"], expected["boxes"], atol=1e-4)


def test_blurred_photos_keep_their_boxes_and_lose_detail(random):
    noise = tf.constant(random.integers(0, 256, (64, 64, 3)), tf.float32)
    objects = {
        "boxes": tf.constant([[0.0, 0, 12, 20], [5.0, 5, 40, 60]]),
        "classes": tf.constant([0, 0]),
        "ignore": tf.constant([False, False]),
    }
    sharpness, ignored = [], set()
    for seed in range(40):
        image, changed = augment.random_blur(noise, objects, 0.5, 15.0, [seed, 0])
        assert image.shape == (64, 64, 3)
        assert changed["boxes"] is objects["boxes"]
        sharpness.append(float(tf.math.reduce_std(image)))
        ignored.add(tuple(changed["ignore"].numpy().tolist()))
        if sharpness[-1] > 73:  # as it was: nothing is ignored
            assert not changed["ignore"].numpy().any()
    assert 10 < sum(value > 73 for value in sharpness) < 30
    assert min(sharpness) < 40
    assert ignored == {(False, False), (True, False)}  # 20 px blurred by more than 4/3


def test_a_share_of_0_blurs_nothing():
    image, objects = photo(40, 50, (10, 10, 30, 30))
    same, changed = augment.random_blur(tf.cast(image, tf.float32), objects, 0.0, 15.0, [1, 0])
    np.testing.assert_array_equal(same, image)
    assert not changed["ignore"].numpy().any()
