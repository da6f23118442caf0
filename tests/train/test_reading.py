import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.images import CASES, SIZES_OF_CASES
from unitbox_tf import images
from unitbox_tf.config import DataConfig
from unitbox_tf.datasets import synthetic
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import pipeline, reading

IMAGE = np.full((20, 30, 3), 9, np.uint8)


def dataset(*elements):
    """Elements with the same keys."""
    names = elements[0].keys()
    spec = {
        "image": tf.TensorSpec([None, None, 3], tf.uint8),
        "boxes": tf.TensorSpec([None, 4], tf.float32),
        "classes": tf.TensorSpec([None], tf.int64),
        "ignore": tf.TensorSpec([None], tf.bool),
    }
    return tf.data.Dataset.from_generator(
        lambda: iter(elements), output_signature={name: spec[name] for name in names}
    )


def element(boxes=((1, 2, 9, 8),), image=IMAGE, **more):
    return {"image": image, "boxes": np.reshape(boxes, (-1, 4)), **more}


def test_elements_become_images_and_objects():
    found = reading.from_elements(
        dataset(element(classes=[1], ignore=[True]), element((), classes=[], ignore=[])),
        2,
        problems=Problems(),
    )
    (image, objects), (_, none) = found.take(2).as_numpy_iterator()
    np.testing.assert_array_equal(image, IMAGE)
    assert {name: value.tolist() for name, value in objects.items()} == {
        "boxes": [[1, 2, 9, 8]],
        "classes": [1],
        "ignore": [True],
    }
    assert {name: value.shape for name, value in none.items()} == {
        "boxes": (0, 4),
        "classes": (0,),
        "ignore": (0,),
    }


def test_classes_and_ignore_may_be_missing():
    [(_, objects)] = reading.from_elements(dataset(element()), 1).take(1)
    assert objects["classes"].numpy().tolist() == [0]
    assert objects["ignore"].numpy().tolist() == [False]


@pytest.mark.parametrize("kind", [np.int32, np.float64])
def test_the_graph_reads_elements_as_python_does(random, kind, monkeypatch):
    first = random.uniform(-9, 25, (40, 3, 2))
    corners = np.concatenate([first, first + random.uniform(1, 30, (40, 3, 2))], axis=-1)
    given = [
        {"image": IMAGE, "boxes": boxes.astype(kind), "classes": np.uint8([0, 2, 1])}
        for boxes in corners
    ]
    spec = {
        "image": tf.TensorSpec([None, None, 3], tf.uint8),
        "boxes": tf.TensorSpec([None, 4], tf.as_dtype(kind)),
        "classes": tf.TensorSpec([None], tf.uint8),
    }
    elements = tf.data.Dataset.from_generator(lambda: iter(given), output_signature=spec)
    in_python = []
    check = reading.checked_element

    def checked(index, *parts, **more):
        in_python.append(index)
        return check(index, *parts, **more)

    monkeypatch.setattr(reading, "checked_element", checked)
    problems = Problems()
    found = list(reading.from_elements(elements, 3, problems=problems).take(40))
    for part, (_, objects) in zip(given, found, strict=True):
        whole = Annotation("a", b"", part["boxes"], part["classes"])
        expected = reading.within(whole, *IMAGE.shape[:2], problems=Problems())
        for name, value in objects.items():
            np.testing.assert_array_equal(value, getattr(expected, name))
    outside = {problem.where.split(",")[0] for problem in problems.found}
    assert outside == {f"element {index}" for index in in_python}
    assert 0 < len(in_python) < 40


def test_elements_whose_shapes_are_not_known_beforehand_are_checked():
    spec = {
        "image": tf.TensorSpec([None, None, 3], tf.uint8),
        "boxes": tf.TensorSpec(None, tf.float32),
    }
    given = [{"image": IMAGE, "boxes": [[1, 2, 9, 8]]}, {"image": IMAGE, "boxes": [[1, 2, 3]]}]
    elements = tf.data.Dataset.from_generator(lambda: iter(given), output_signature=spec)
    found = iter(reading.from_elements(elements, 1))
    assert next(found)[1]["boxes"].numpy().tolist() == [[1, 2, 9, 8]]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"element 1: expected boxes \[N, 4\]"):
        next(found)


def test_boxes_that_leave_the_image_are_cut_and_those_outside_are_reported_once():
    problems = Problems()
    boxes = [[-5, 2, 9, 80], [40, 2, 50, 8]]
    found = reading.from_elements(dataset(element(), element(boxes)), 1, problems=problems)
    for _ in range(2):
        _, (_, objects) = found.take(2).as_numpy_iterator()
        assert objects["boxes"].tolist() == [[0, 2, 9, 20]]
    assert [problem.where for problem in problems.found] == ["element 1, object 2"]


def test_readers_of_one_data_set_report_a_box_once():
    """Mosaics of each size have a reader."""
    problems, known = Problems(), reading.Elements()
    for _ in range(2):
        elements = dataset(element(((40, 2, 50, 8),)))
        [_] = reading.from_elements(elements, 1, known=known, problems=problems).take(1)
    assert len(problems.found) == 1


def test_boxes_outside_are_reported_in_the_first_pass_alone():
    """Also if a data set is shuffled, so that another element has the number."""
    problems = Problems()
    passes = iter(
        [[element(((40, 2, 50, 8),)), element()], [element(), element(((41, 2, 50, 8),))]]
    )
    spec = {
        "image": tf.TensorSpec([None, None, 3], tf.uint8),
        "boxes": tf.TensorSpec([None, 4], tf.float32),
    }
    elements = tf.data.Dataset.from_generator(lambda: iter(next(passes)), output_signature=spec)
    found = list(reading.from_elements(elements, 1, problems=problems).take(4))
    assert [len(objects["boxes"]) for _, objects in found] == [0, 1, 1, 0]
    assert [problem.where for problem in problems.found] == ["element 0, object 1"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (element(classes=[1]), r"element 1: expected classes from 0 to 0.*Received: 1"),
        (element(classes=[-1]), r"element 1: expected classes from 0.*Received: -1"),
        (element(classes=[0, 0]), r"element 1.*classes"),
        (element(image=IMAGE[:0], classes=[0]), "element 1: expected an image with pixels"),
    ],
)
def test_an_element_that_cannot_be_used_is_an_error_that_says_which(wrong, message):
    elements = dataset(element(classes=[0]), wrong)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        list(reading.from_elements(elements, 1).take(2))
    with pytest.raises(ValueError, match=message):
        reading.annotations_of(elements, 9, 1)
    assert len(reading.annotations_of(elements, 1, 1)) == 1  # the second is not read


def test_a_data_set_gives_the_batches_of_its_annotations():
    """Only the order is random. A data set decides it for itself."""
    source = [synthetic.draw(number) for number in range(3)]
    data = DataConfig(image_size=64, random_crop=True, flip=True, colour=0.3)
    elements = dataset(*({"image": images.decode_photo(a.image), "boxes": a.boxes} for a in source))
    options = {"labels": pipeline.Labels(1), "batch_size": 2, "seed": 3}
    got = pipeline.training_dataset(elements, data, **options).take(3)
    in_order = reading.from_annotations(source).repeat()
    changed = pipeline._changed(in_order, data, 64, (0.0, 0.0, 0.0), 3, tf.data.Dataset.counter())
    expected = pipeline.batches(changed, data, 64, pipeline.Labels(1), 2).take(3)
    for a, b in zip(got, expected, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("count", [None, 3])
def test_a_data_set_goes_on_at_the_element_after_those_that_were_used(count):
    """Elements of whole passes are not read again if it is known how many a pass has."""
    read = []

    def each():
        for number in range(3):
            read.append(number)
            yield element(image=IMAGE + np.uint8(number))

    spec = {
        "image": tf.TensorSpec([None, None, 3], tf.uint8),
        "boxes": tf.TensorSpec([None, 4], tf.float32),
    }
    elements = tf.data.Dataset.from_generator(each, output_signature=spec)
    found = reading.from_elements(elements, 1, 8, reading.Elements(count)).take(2)
    assert [int(image[0, 0, 0]) - 9 for image, _ in found] == [2, 0]
    assert len(read) < 9 if count else len(read) >= 9


def test_the_number_of_elements_is_known_when_a_pass_was_read():
    known = reading.Elements()
    read = iter(reading.from_elements(dataset(element(), element()), 1, known=known))
    assert known.count is None
    for _ in range(3):
        next(read)
    assert known.count == 2


def test_images_in_memory_come_back_pixel_by_pixel(random):
    array = random.integers(0, 256, (21, 34, 3), np.uint8)
    source = [Annotation("a", array, [[1, 2, 9, 8]])]
    ((image, objects),) = reading.from_annotations(source, problems=Problems())
    np.testing.assert_array_equal(image, array)
    assert objects["boxes"].numpy().tolist() == [[1, 2, 9, 8]]


def test_training_sees_images_of_all_formats_as_displayed():
    """So that boxes, which are in pixels of the image as displayed, lie on their objects."""
    paths = sorted(CASES.iterdir())
    problems = Problems()
    source = [Annotation(path.name, path, [[1, 2, 9, 8]]) for path in paths]
    found = reading.from_annotations(source, problems=problems)
    sizes = [tuple(image.shape[:2]) for image, _ in found if image.shape[:2] != (1, 1)]
    assert sizes == [SIZES_OF_CASES[path.name] for path in paths if path.name in SIZES_OF_CASES]
    assert [problem.message[:20] for problem in problems.found] == ["the file is cut off:"]


def test_images_that_can_be_read_are_found_beforehand():
    good, bad = synthetic.draw(0), synthetic.draw(1)
    bad = bad.__class__("bad", b"no image", [])
    problems = Problems()
    assert reading.readable([bad, good, bad], problems=problems) == [good]
    assert problems.counts == {images.UNDECODABLE: 1}
    assert reading.readable([good, bad], enough=1) == [good]
    with pytest.raises(ValueError, match="none of the 1 images can be decoded; the first: bad: "):
        reading.readable([bad])
