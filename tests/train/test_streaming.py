"""Shards that stream give what the reader in memory gives, in an order that depends on seed and place alone."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.data_sets import png
from tests.helpers.images import CASES
from tests.helpers.shards import NAMES, pictures, write
from tests.train.test_resuming import Stop, changed, make_plain, same
from unitbox_tf import images, runs
from unitbox_tf.datasets import checks, sizes, synthetic, tfrecord
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import examples, fit, reading, streaming


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Shards of at most 1,500 bytes of images, and chunks of 3 records."""
    monkeypatch.setattr(tfrecord, "SHARD_BYTES", 1500)
    monkeypatch.setattr(streaming, "CHUNK", 3)


def url(root):
    return f"tfrecord:file://{root}#train"


def numbered(count, first=0):
    """Images whose first pixel is their number, each with an object of its own."""
    found = []
    for number in range(first, first + count):
        image = np.full((10 + number % 3, 12, 3), number, np.uint8)
        boxes = [[0.1 + number / 300, 1, 5.3, 7], [2, 2, 30, 30]]
        found.append(Annotation(f"{number}.png", image, boxes, [number % 2, 1], [False, True]))
    return found


def stream(root, names=NAMES, **options):
    return streaming.Stream([streaming.opened(url(root))], names, **options)


def taken(dataset, count):
    """Image, boxes, classes and ignore of the next images."""
    return [
        (image, *objects.values()) for image, objects in dataset.take(count).as_numpy_iterator()
    ]


def shown(dataset, count):
    return [int(image[0, 0, 0]) for image, *_ in taken(dataset, count)]


@pytest.fixture
def shards(tmp_path):
    write(numbered(40), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.tfrecord"))) > 2
    return tmp_path / "out"


def test_images_and_objects_are_those_of_the_reader_in_memory_to_the_bit(shards):
    expected = {}
    annotations = list(tfrecord.Shards(shards, "train").annotations())
    for image, *objects in taken(reading.from_annotations(annotations), 40):
        expected[int(image[0, 0, 0])] = (image, *objects)
    found = taken(stream(shards).images(3), 40)
    assert sorted(int(image[0, 0, 0]) for image, *_ in found) == list(range(40))
    for parts in found:
        for one, other in zip(parts, expected[int(parts[0][0, 0, 0])], strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_the_first_images_in_memory_are_those_of_the_reader_in_memory(shards):
    found = stream(shards).annotations(7)
    for one, other in zip(found, tfrecord.Shards(shards, "train").annotations(), strict=False):
        assert one.image == other.encoded()
        assert dataclasses.replace(one, image=b"") == dataclasses.replace(other, image=b"")
    assert len(found) == 7


def test_each_pass_has_all_images_in_another_order(shards):
    found = shown(stream(shards, buffer=8).images(3), 120)
    passes = [found[:40], found[40:80], found[80:]]
    assert all(sorted(each) == list(range(40)) for each in passes)
    assert len({tuple(each) for each in [*passes, list(range(40))]}) == 4
    assert shown(stream(shards, buffer=8).images(4), 40) != passes[0]


def test_the_order_does_not_depend_on_the_global_seed_of_tensorflow(shards):
    tf.keras.utils.set_random_seed(7)
    found = shown(stream(shards, buffer=8).images(3), 90)
    tf.keras.utils.set_random_seed(8)
    assert shown(stream(shards, buffer=8).images(3), 90) == found


@pytest.mark.parametrize(
    ("start", "is_planned"), [(17, True), (40, True), (93, True), (40, False), (93, False)]
)
def test_images_go_on_at_any_place_as_without_an_interruption(shards, start, is_planned):
    if not is_planned:
        (shards / "train.shards.json").unlink()
    expected = shown(stream(shards, buffer=8).images(3), 120)
    assert shown(stream(shards, buffer=8).images(3, start), 120 - start) == expected[start:]


def test_the_number_of_records_is_learned_and_whole_passes_are_not_read_again(shards, monkeypatch):
    (shards / "train.shards.json").unlink()
    known, found = reading.Elements(), stream(shards)
    assert found.count() is None
    expected = shown(found.images(3, known=known), 90)
    assert found.count() == known.count == 40

    read, records = [], streaming.records

    def counting(path, *more):
        for number, record in records(path, *more):
            read.append(number)
            yield number, record

    monkeypatch.setattr(streaming, "records", counting)
    start = 40 * 1000 + 5
    assert shown(stream(shards).images(3, start, known=known), 35)
    assert len(read) <= 40 * 4
    assert shown(stream(shards).images(3, 45, known=known), 45) == expected[45:]


def test_workers_share_the_shards(shards):
    found = stream(shards)
    parts = [
        shown(found.images(3, index=index, count=2), found.count(index, 2)) for index in range(2)
    ]
    assert sorted(parts[0] + parts[1]) == list(range(40))
    assert min(map(len, parts)) > 5
    with pytest.raises(ValueError, match=r"expected a shard for each worker.*Received: \d+ shards"):
        found.images(3, index=0, count=len(found) + 1)
    with pytest.raises(ValueError, match="worker below 2"):
        found.images(3, index=2, count=2)


def test_shards_of_other_tools_are_read_as_in_memory(tmp_path):
    for name, boxes in (
        ("train-00000-of-00002", [0.25, 0.0]),
        ("train-00001-of-00002", [0.5, 0.1]),
    ):
        with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
            features = tf.train.Features()
            for key, values in {
                "encoded": [png(60, 80)],
                "filename": [b"a.png"],
                "height": [60],
                "width": [80],
                "object/bbox/xmin": boxes,
                "object/bbox/ymin": [0.3, 0.0],
                "object/bbox/xmax": [0.7, 1.0],
                "object/bbox/ymax": [1.0, 1.0],
                "object/class/label": [2, 1],
                "object/difficult": [0, 1],
            }.items():
                feature = features.feature[f"image/{key}"]
                kind = {bytes: "bytes_list", int: "int64_list", float: "float_list"}[
                    type(values[0])
                ]
                getattr(feature, kind).value.extend(values)
            writer.write(tf.train.Example(features=features).SerializeToString())
    expected = list(tfrecord.Shards(tmp_path, "train").annotations())
    in_memory = taken(reading.from_annotations(expected), 2)
    found = taken(stream(tmp_path).images(3), 2)
    order = [0, 1] if np.array_equal(found[0][1], in_memory[0][1]) else [1, 0]
    for one, other in zip(found, [in_memory[index] for index in order], strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_classes_are_matched_by_name(shards):
    source = streaming.opened(url(shards), rename={"cat": "hound"})
    assert source.names == ("hound", "dog")
    found = streaming.Stream([source], ("dog", "hound"))
    for image, _, classes, ignore in taken(found.images(3), 40):
        number = int(image[0, 0, 0])
        assert classes.tolist() == [1 - number % 2, 0]
        assert ignore.tolist() == [False, True]
    only = streaming.Stream([source], ("hound",), classes=("hound",))
    for image, boxes, classes, _ in taken(only.images(3), 40):
        number = int(image[0, 0, 0])
        assert classes.tolist() == [0] * (1 - number % 2)
        assert len(boxes) == len(classes)
    lacking = streaming.Stream([source], ("hound",))
    with pytest.raises(
        tf.errors.OpError, match=r"tfrecord.*classes that are not among the model's: 'dog'"
    ):
        taken(lacking.images(3), 40)


def test_without_names_the_classes_count(shards):
    (shards / "labels.txt").unlink()
    source = streaming.opened(url(shards))
    assert source.names is None
    for image, _, classes, _ in taken(streaming.Stream([source], ("a", "b")).images(3), 40):
        assert classes.tolist() == [int(image[0, 0, 0]) % 2, 1]
    with pytest.raises(tf.errors.OpError, match="has objects of at least 2 classes"):
        taken(streaming.Stream([source], ("a",)).images(3), 40)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-5])


def damaged(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_off_between_records(path):
    *_, last = tfrecord._lengths(path, path.open("rb"))
    path.write_bytes(path.read_bytes()[: last[0] - 12])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut_off, r"record \d+, at byte \d+: cut off or damaged"),
        (damaged, r"record \d+, at byte \d+: damaged, or no TFRecord file without compression"),
        (cut_off_between_records, r"expected \d+ records, received \d+: it is cut off"),
        (lambda path: path.unlink(), r"after record 0: .*No such file"),
    ],
)
def test_a_shard_that_is_damaged_is_named(shards, spoil, message):
    found = stream(shards)
    spoil(shards / sorted(path.name for path in shards.glob("*.tfrecord"))[1])
    match = rf"file://\S*train-00001-of-\d+\.tfrecord: {message}"
    with pytest.raises(tf.errors.OpError, match=match):
        taken(found.images(3), 40)
    with pytest.raises((ValueError, OSError), match=f"^{match}"), streaming.named_errors(found):
        taken(found.images(3), 40)


def test_records_that_are_no_images_are_named(shards):
    path = shards / "train-00000-of-00001.tfrecord"
    for other in shards.glob("*"):
        other.unlink()
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"text")
    with pytest.raises(
        tf.errors.OpError, match=r"tfrecord: record 1: expected an image with its box"
    ):
        taken(stream(shards).images(3), 1)


def test_images_that_cannot_be_used_are_reported_and_replaced(tmp_path, monkeypatch):
    """A text, an image above the limit, an object of no class, and an image of another size than stated."""
    large = np.full((60, 60, 3), 200, np.uint8)
    spoiled = [
        Annotation("text.png", b"text", [[1, 1, 5, 5]]),
        Annotation("large.png", large, [[1, 1, 5, 5]]),
        Annotation("odd.png", png(10, 12), [[1, 1, 5, 5]], size=(99, 99)),
    ]
    write([*numbered(30), *spoiled], tmp_path / "out", names=NAMES)
    problems = Problems()
    found = shown(stream(tmp_path / "out").images(3, max_pixels=3000, problems=problems), 66)
    assert set(found) == set(range(30))
    assert problems.counts == {images.UNDECODABLE: 2, sizes.OTHER_SIZE: 1}
    places = {problem.where.partition(".tfrecord: ")[2] for problem in problems.found}
    assert places == {"text.png", "large.png", "odd.png"}
    assert all(problem.where.startswith("file://") for problem in problems.found)
    assert shown(stream(tmp_path / "out").images(3, 20, max_pixels=3000), 46) == found[20:]


def test_an_object_of_an_unknown_class_leaves_its_image_out(tmp_path):
    plain = [
        Annotation(f"{n}.png", np.full((9, 9, 3), n, np.uint8), [[1, 1, 5, 5]]) for n in (98, 99)
    ]
    write([*numbered(9), *plain], tmp_path / "out")
    (tmp_path / "out" / "labels.txt").write_text("cat\n")
    problems = Problems()
    assert set(shown(stream(tmp_path / "out").images(3, problems=problems), 11)) == {98, 99}
    assert problems.counts == {checks.UNREADABLE: 13}


def test_shards_without_records_are_refused(tmp_path):
    (tmp_path / "train-00000-of-00001.tfrecord").touch()
    found = stream(tmp_path)
    with pytest.raises(ValueError, match="found none"), streaming.named_errors(found):
        taken(found.images(3), 1)


def test_if_no_image_of_a_group_can_be_used_it_is_one_black_pixel(tmp_path):
    write([Annotation("a.png", b"text", [[1, 1, 5, 5]])], tmp_path / "out")
    problems = Problems()
    ((image, boxes, *_),) = taken(stream(tmp_path / "out").images(3, problems=problems), 1)
    assert (image.shape, boxes.shape, image.max()) == ((1, 1, 3), (0, 4), 0)
    assert problems.counts == {images.UNDECODABLE: 1}


def test_boxes_outside_their_image_are_reported_with_the_shard(tmp_path):
    write([Annotation("a.png", png(20, 30), [[1, 1, 5, 5], [40, 2, 50, 8]])], tmp_path / "out")
    problems = Problems()
    for _, boxes, *_ in taken(stream(tmp_path / "out").images(3, problems=problems), 3):
        assert boxes.tolist() == [[1, 1, 5, 5]]
    [problem] = problems.found
    assert problem.kind == "box outside its image"
    assert problem.where.endswith("train-00000-of-00001.tfrecord: a.png, object 2")


def test_images_of_all_formats_are_those_of_the_reader_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecord, "SHARD_BYTES", 1 << 20)
    source = [Annotation(path.name, path, [[1, 2, 9, 8]]) for path in sorted(CASES.iterdir())]
    write(source, tmp_path / "out")
    in_memory = list(tfrecord.Shards(tmp_path / "out", "train").annotations())
    one, other = Problems(), Problems()
    expected = taken(reading.from_annotations(in_memory, problems=one), len(source))
    found = taken(stream(tmp_path / "out").images(3, problems=other), len(source))
    assert {p.message for p in one.found} == {p.message for p in other.found}
    usable = [image for image, *_ in expected if image.shape != (1, 1, 3)]
    for image in usable:
        assert any(np.array_equal(image, each) for each, *_ in found)


def test_a_source_streams_if_it_has_a_url_or_if_that_is_set(tmp_path):
    assert streaming.is_streamed("tfrecord:gs://bucket/shards#train", False)
    assert streaming.is_streamed("tfrecord:s3://bucket/shards", False)
    assert not streaming.is_streamed("tfrecord:shards#train", False)
    assert streaming.is_streamed("tfrecord:shards#train", True)
    assert not streaming.is_streamed("coco:shards#train", True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "train-00001-of-00003.tfrecord").unlink(), "no such file, one of 3"),
        (
            lambda root: (root / "labels.txt").write_text("a\na\n"),
            r"file://.*labels\.txt:2: expected",
        ),
        (
            lambda root: (root / "train.shards.json").write_text("{"),
            r"file://.*shards\.json: expec",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_when_it_is_opened(
    tmp_path, monkeypatch, change, message
):
    monkeypatch.setattr(tfrecord, "SHARD_BYTES", 1000)
    write(pictures(6), tmp_path / "out")
    assert len(streaming.opened(url(tmp_path / "out")).paths) == 3
    change(tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        streaming.opened(url(tmp_path / "out"))


def test_places_without_shards_are_refused(tmp_path):
    with pytest.raises(ValueError, match="gone: no such folder, and no TFRecord file"):
        streaming.opened(f"tfrecord:file://{tmp_path}/gone")
    with pytest.raises(ValueError, match="found none"):
        streaming.opened(url(tmp_path))
    with pytest.raises(OSError, match=r"foo://a/b, of the source .*not implemented"):
        streaming.opened("tfrecord:foo://a/b#train")


def test_one_shard_can_be_named(shards):
    path = sorted(shards.glob("*.tfrecord"))[1]
    found = streaming.opened(f"tfrecord:file://{path}")
    assert found.paths == (f"file://{path}",)
    assert found.names == NAMES
    assert found.planned[0] is not None


def test_a_million_names_are_not_needed_to_write(tmp_path):
    """Shards that are written in one reading hold what `write` writes."""
    source = numbered(40)
    tfrecord.write_once(iter(source), tmp_path / "once", "train", NAMES)
    write(source, tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "once" / path.name).read_bytes()
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        tfrecord.write_once(source, tmp_path / "once", "train", NAMES)


def test_writing_in_one_reading_leaves_nothing_after_an_error(tmp_path):
    source = [*numbered(20), Annotation("a", b"", [[0, 0, 1, 1]], [5])]
    with pytest.raises(ValueError, match="has an object of class 5"):
        tfrecord.write_once(source, tmp_path / "once", "train", NAMES)
    assert list(tmp_path.iterdir()) == []
    problems = Problems()
    odd = [Annotation("../a.png", png(6, 8), []), synthetic.draw(0)]
    written = tfrecord.write_once(odd, tmp_path / "b", "", ("object",), problems=problems)
    assert (written.images, problems.counts) == (1, {checks.OUTSIDE: 1})


# Training


def drawn(*numbers):
    """Images with objects of the class 1, and one of the class 0 in each."""
    found = [synthetic.draw(number) for number in range(*numbers)]
    return [
        dataclasses.replace(each, classes=(np.arange(len(each.boxes)) > 0).astype(np.int32))
        for each in found
    ]


@pytest.fixture
def streamed(whole, tmp_path, monkeypatch):
    """`whole` with shards to train on, and others to validate, both with a URL."""
    monkeypatch.setattr(tfrecord, "SHARD_BYTES", 20_000)
    names = ("other", "object")
    write(drawn(0, 9), tmp_path / "shards", names=names)
    write(drawn(20, 29), tmp_path / "shards", split="val", names=names)
    place = f"tfrecord:file://{tmp_path}/shards"
    data = dataclasses.replace(
        whole.data,
        train_sources=(f"{place}#train",),
        validation_sources=(f"{place}#val",),
        shared_images=False,
        stream_buffer=4,
    )
    model = dataclasses.replace(whole.model, class_names=())
    return changed(dataclasses.replace(whole, data=data, model=model), validation_images=3)


@pytest.mark.slow
def test_training_from_urls_ends_as_any_other(streamed, caplog):
    caplog.set_level("INFO")
    done = fit.fit(streamed)
    assert done.model.class_names == ("other", "object")
    assert (done.folder / "results.json").is_file()
    assert done.problems.counts == {}
    assert "9 training images stream from" in caplog.text
    assert "3 validation images, of which 3 judge each epoch" in caplog.text
    assert "cannot be looked at before training" in caplog.text
    stored = runs.Run(done.folder).config()
    assert stored.data.train_sources == streamed.data.train_sources
    assert stored.data.validation_sources == streamed.data.validation_sources


@pytest.mark.slow
@pytest.mark.parametrize("is_planned", [True, False])
def test_a_stopped_run_goes_on_with_the_images_that_it_would_have_shown(
    streamed, tmp_path, monkeypatch, is_planned
):
    """Six steps of two images and of mosaics of nine: more than a pass."""
    if not is_planned:
        (tmp_path / "shards" / "train.shards.json").unlink()
    config = make_plain(streamed, monkeypatch)
    whole = fit.fit(config).folder
    again = changed(config, run="stopped")
    with pytest.raises(RuntimeError, match="killed"):
        fit.fit(again, callbacks=[Stop(RuntimeError("killed"), step=4)])
    same(whole, fit.fit(again, resume=whole.with_name("stopped")).folder)


def with_data(config, **data):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **data))


def test_local_shards_stream_if_that_is_set(streamed, tmp_path):
    local = with_data(streamed, data=str(tmp_path), train_sources=("tfrecord:shards#train",))
    [source] = examples.opened(None, "train", local)
    assert not isinstance(source, streaming.Streamed)
    local = with_data(local, stream=True)
    [source] = examples.opened(None, "train", local)
    assert isinstance(source, streaming.Streamed)
    assert source.paths[0].startswith(str(tmp_path))
    opened = examples.opened(["tfrecord:shards#val"], "validation", local)
    assert not isinstance(opened[0], streaming.Streamed)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"more": "synthetic:#0-4"},
            r"stream \(--stream\): expected all .*Received: synthetic:#0-4",
        ),
        ({"classes": ("objet",)}, "no source has the class 'objet'"),
        ({"rename": ("objet=thing",)}, "no source has the class 'objet'"),
    ],
)
def test_settings_that_cannot_work_are_refused(streamed, data, message):
    sources = streamed.data.train_sources
    if "more" in data:
        data = {"train_sources": (*sources, data["more"])}
    with pytest.raises(ValueError, match=message):
        fit.fit(with_data(streamed, **data))


def test_classes_are_chosen_and_renamed(streamed):
    config = with_data(streamed, rename=("object=thing",), classes=("thing",))
    train = examples.opened(None, "train", config)
    validation = examples.opened(None, "validation", config)
    config = examples.with_class_names(config, train, validation)
    assert config.model.class_names == ("thing",)
    judged = examples.validation(validation, config, train=train)
    assert {int(label) for each in judged.annotations for label in each.classes} == {0}
    stream = examples.training(train, config).examples
    assert {int(label) for *_, classes, _ in taken(stream.images(3), 9) for label in classes} == {0}


def test_names_of_classes_are_needed(streamed, tmp_path):
    (tmp_path / "shards" / "labels.txt").unlink()
    train = examples.opened(None, "train", streamed)
    with pytest.raises(ValueError, match=r"class_names \(--class-names\): expected the names"):
        examples.with_class_names(streamed, train, train)


def test_shards_of_which_no_image_can_be_decoded_are_refused(streamed, tmp_path):
    write([Annotation("a.png", b"text", [[1, 1, 5, 5]])], tmp_path / "bad", names=("object",))
    config = with_data(streamed, train_sources=(f"tfrecord:file://{tmp_path}/bad#train",))
    with pytest.raises(ValueError, match="none of the 1 images can be decoded"):
        fit.fit(config)
