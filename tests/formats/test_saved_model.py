import dataclasses
import json
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.exports import CARD, CONFIG
from tests.helpers.images import CASES, REFUSED_IN_GRAPHS
from unitbox_tf import formats, inputs, limits
from unitbox_tf.detect import graph, padding
from unitbox_tf.detect.detector import Detector
from unitbox_tf.formats import saved_model

NAMES = CONFIG.model.class_names


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "saved_model"
    saved_model.save(model, path, CARD)
    return path


@pytest.fixture(scope="module")
def loaded(saved):
    return tf.saved_model.load(str(saved))


def png(photo):
    return cv2.imencode(".png", photo[..., ::-1])[1].tobytes()


def test_it_finds_what_the_python_path_finds(loaded, photos, expected, assert_same):
    for photo, wanted in zip(photos, expected, strict=True):
        size = photo.shape[:2]
        for signature, value, name in (
            ("images", photo[None], "images"),
            ("serving_default", np.array([png(photo)], object), "encoded"),
            ("encoded", np.array([png(photo)], object), "encoded"),
        ):
            padded = loaded.signatures[signature](**{name: tf.constant(value)})
            [found] = padding.unpad(padded, [size])
            assert_same(found, wanted, pixels=0.5, scores=1e-3)
            assert not padded["boxes"][0, len(found) :].numpy().any()
            assert not padded["scores"][0, len(found) :].numpy().any()


def test_photos_of_all_sizes_go_in_one_batch(loaded, photos, expected, assert_same):
    padded = loaded.signatures["encoded"](encoded=tf.constant([png(photo) for photo in photos]))
    found = padding.unpad(padded, [photo.shape[:2] for photo in photos])
    for one, wanted in zip(found, expected, strict=True):
        assert_same(one, wanted, pixels=0.5, scores=1e-3)


@pytest.mark.slow
def test_each_decoder_and_threshold_is_that_of_python(model, loaded, photos, assert_same):
    for options in (
        {"decoder": "ellipse"},
        {"decoder": "ellipse", "blob_threshold": 0.3, "score_threshold": 0.2},
        {"decoder": "peaks", "score_threshold": 0.6},
        {"nms_iou": 0.8, "max_detections": 7},
    ):
        decode = dataclasses.replace(CONFIG.decode, **options)
        find = Detector.of(model, decode)
        signature = loaded.signatures["images_with_options"]
        full = {n: tf.constant(getattr(decode, n), t) for n, t in graph.options().items()}
        count = 0
        for photo in photos[1:16]:
            wanted = find(photo)
            count += len(wanted)
            size = [photo.shape[:2]]
            for padded in (
                loaded.detect(photo[None], **{n: full[n] for n in options}),
                loaded.detect_encoded([png(photo)], **{n: full[n] for n in options}),
                signature(images=tf.constant(photo[None]), **full),
            ):
                [found] = padding.unpad(padded, size)
                assert_same(found, wanted, pixels=0.5, scores=1e-3)
            assert padded["boxes"].shape[1] == decode.max_detections
        assert count > 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "circle"}, "expected a decoder of"),
        ({"max_detections": 0}, "expected max_detections from 1 to 10000"),
        ({"max_detections": 300_000_000}, "expected max_detections from 1 to 10000"),
        ({"score_threshold": np.nan}, "expected score_threshold from 0 to 1"),
        ({"nms_iou": np.inf}, "expected nms_iou from 0 to 1"),
        ({"blob_threshold": -1.0}, "expected blob_threshold from 0 to 1"),
    ],
)
def test_options_that_are_none_are_errors(loaded, photos, options, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        loaded.detect(photos[6][None], **options)


def test_each_photo_may_have_settings_of_its_own(loaded, photos):
    """As the row format and the batches of TensorFlow Serving give them: each input has the dimension of the batch."""
    rows = [
        {"decoder": b"peaks", "score_threshold": 0.02, "max_detections": 9, "nms_iou": 0.8},
        {"decoder": b"ellipse", "score_threshold": 0.2, "max_detections": 4, "nms_iou": 0.1},
        {"decoder": b"peaks", "score_threshold": 0.6, "max_detections": 1, "nms_iou": 0.4},
    ]
    rows = [{**row, "blob_threshold": 0.3} for row in rows]
    chosen = [png(photo) for photo in photos[10:13]]
    dtypes = graph.options()
    vectors = {n: tf.constant([row[n] for row in rows], dtype) for n, dtype in dtypes.items()}
    signature = loaded.signatures["encoded_with_options"]
    together = signature(encoded=tf.constant(chosen), **vectors)
    assert together["boxes"].shape == (3, 9, 4)  # the largest of max_detections
    counts = together["num_detections"].numpy()
    assert len(set(counts)) == 3
    for index, row in enumerate(rows):
        scalars = {n: tf.constant(value, dtypes[n]) for n, value in row.items()}
        alone = signature(encoded=tf.constant(chosen[index : index + 1]), **scalars)
        most = row["max_detections"]
        assert alone["boxes"].shape == (1, most, 4)
        for name, values in alone.items():
            part = together[name][index].numpy()
            if name != "num_detections":
                assert not part[most:].any()
                part = part[:most]
            np.testing.assert_array_equal(part, values[0])


def test_a_setting_in_a_list_of_one_holds_for_all_photos(loaded, photos):
    chosen = [png(photo) for photo in photos[10:13]]
    scalar = loaded.detect_encoded(chosen, score_threshold=0.2, max_detections=5)
    listed = loaded.detect_encoded(chosen, score_threshold=[0.2], max_detections=5)
    for name, values in scalar.items():
        np.testing.assert_array_equal(values, listed[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": [0.1, 0.2]}, "expected one score_threshold, or one for each of"),
        (
            {"score_threshold": [[0.1, 0.2, 0.3]]},
            "expected one score_threshold, or one for each of",
        ),
        ({"score_threshold": [0.1, 0.2, 1.3]}, "expected score_threshold from 0 to 1"),
        ({"decoder": ["peaks", "circle", "peaks"]}, "expected a decoder of"),
        ({"max_detections": [1, 2, 300_000_000]}, "expected max_detections from 1 to 10000"),
    ],
)
def test_settings_of_each_photo_that_are_none_are_errors(loaded, photos, options, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        loaded.detect_encoded([png(photo) for photo in photos[10:13]], **options)


def test_as_many_detections_may_be_asked_for_as_the_bound_allows(loaded, photos):
    found = loaded.detect(photos[1][None], max_detections=limits.MAX_DETECTIONS)
    assert found["boxes"].shape == (1, limits.MAX_DETECTIONS, 4)


def test_too_many_or_too_large_images_are_errors(loaded, photos):
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 1024 images at once"):
        loaded.detect(np.zeros((1025, 1, 1, 3), np.uint8))
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 1024 images at once"):
        loaded.signatures["encoded"](tf.repeat(png(photos[1]), 1025))
    claim = bytearray(png(photos[1]))
    claim[16:24] = struct.pack(">II", 60_000, 60_000)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"an image of at most\] \[50000000\]"):
        loaded.signatures["encoded"](tf.constant([bytes(claim)]))


def test_no_photo_is_an_error(loaded):
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected at least one image"):
        loaded.detect_encoded(tf.constant([], tf.string))


def test_options_have_defaults_that_a_server_fills_in(saved):
    """TensorFlow Serving takes them from the signature."""
    from tensorflow.core.protobuf import saved_model_pb2

    stored = saved_model_pb2.SavedModel()
    stored.ParseFromString((saved / "saved_model.pb").read_bytes())
    signatures = stored.meta_graphs[0].signature_def
    for name, data in (("images_with_options", "images"), ("encoded_with_options", "encoded")):
        assert set(signatures[name].inputs) == {data, *graph.options()}
        defaults = {n: tf.make_ndarray(v) for n, v in signatures[name].defaults.items()}
        assert set(defaults) == set(graph.options())
        for option, value in defaults.items():
            wanted = getattr(CONFIG.decode, option)
            assert (value.item().decode() if option == "decoder" else value) == pytest.approx(
                wanted
            )


def test_heatmaps_are_those_of_the_network(model, loaded, random):
    image = random.integers(0, 256, (1, 40, 60, 3), np.uint8)
    found, wanted = loaded.signatures["heatmaps"](images=tf.constant(image)), model(image)
    assert set(found) == {"confidence", "distances"}
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[name], atol=1e-3)


def test_real_photos_give_the_same_from_bytes_and_arrays(loaded, data):
    photos = sorted(data("fddb/originalPics").rglob("*.jpg"))[:50]
    signatures = loaded.signatures
    sizes = set()
    for path in photos:
        encoded = path.read_bytes()
        image = inputs.read_image(encoded)
        sizes.add(image.shape)
        a = signatures["encoded"](encoded=tf.constant([encoded]))
        b = signatures["images"](images=tf.constant(image[None]))
        np.testing.assert_allclose(a["boxes"], b["boxes"], atol=0.5)
        np.testing.assert_allclose(a["scores"], b["scores"], atol=1e-3)
    assert len(sizes) > 10


def test_an_image_batch_gives_what_its_images_give(loaded, random):
    images = random.integers(0, 256, (3, 50, 70, 3), np.uint8)
    signature = loaded.signatures["images"]
    together = signature(images=tf.constant(images))
    for index in range(3):
        alone = signature(images=tf.constant(images[index : index + 1]))
        np.testing.assert_allclose(together["boxes"][index], alone["boxes"][0], atol=0.1)


def test_it_opens_where_the_package_is_not(saved, photos, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(cv2.imencode(".png", photos[10])[1].tobytes())
    code = f"""
import sys
sys.modules["unitbox_tf"] = None  # importing it fails
sys.modules["keras"] = None
import tensorflow as tf
loaded = tf.saved_model.load({str(saved)!r})
found = loaded.signatures["encoded"](encoded=tf.constant([open({str(path)!r}, "rb").read()]))
assert found["boxes"].shape == (1, 100, 4) and found["num_detections"][0] > 0
assert loaded.class_names().numpy().tolist() == [b"cat", b"dog"]
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def test_signatures_take_what_they_say(loaded):
    signatures = loaded.signatures
    with_options = {"images_with_options", "encoded_with_options"}
    assert set(signatures) == {"serving_default", "images", "encoded", "heatmaps"} | with_options
    (images,) = signatures["images"].structured_input_signature[1].values()
    assert (images.dtype, images.shape.as_list()) == (tf.uint8, [None, None, None, 3])
    (encoded,) = signatures["encoded"].structured_input_signature[1].values()
    assert (encoded.dtype, encoded.shape.as_list()) == (tf.string, [None])


def test_saving_again_replaces_an_export_and_nothing_else(model, tmp_path):
    path = tmp_path / "saved_model"
    path.mkdir()
    (path / "leftover").write_text("a user's file")
    with pytest.raises(ValueError, match="exists and is no SavedModel: it is left as it is"):
        saved_model.save(model, path)
    assert (path / "leftover").read_text() == "a user's file"
    (path / "saved_model.pb").write_text("an earlier export")
    saved_model.save(model, path)
    assert not (path / "leftover").exists()
    assert (path / "saved_model.pb").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["saved_model"]


def test_a_corrupt_photo_is_an_error(loaded):
    signature = loaded.signatures["encoded"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        signature(encoded=tf.constant([b"no image"]))


@pytest.mark.parametrize("path", sorted(CASES.iterdir()), ids=lambda path: path.name)
def test_an_encoded_image_gives_what_its_array_gives_or_is_refused_by_name(loaded, path):
    options = {"score_threshold": 0.0, "max_detections": 5}
    encoded = path.read_bytes()
    if path.name in REFUSED_IN_GRAPHS:
        with pytest.raises(tf.errors.InvalidArgumentError, match=REFUSED_IN_GRAPHS[path.name]):
            loaded.detect_encoded(tf.constant([encoded]), **options)
        return
    found = loaded.detect_encoded(tf.constant([encoded]), **options)
    wanted = loaded.detect(inputs.read_image(encoded)[None], **options)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, atol=1e-3)


def test_it_says_what_it_is(saved, loaded):
    assert loaded.class_names().numpy().tolist() == [b"cat", b"dog"]
    assert loaded.model_card().numpy().decode() == CARD
    inside = json.loads(loaded.decode_config().numpy())
    assert inside == json.loads(CONFIG.to_json())["decode"]
    assert (saved / "assets.extra" / formats.MODEL_CARD).read_text(encoding="utf-8") == CARD


def test_the_command_line_tool_of_tensorflow_shows_it(saved, capsys, monkeypatch):
    from tensorflow.python.tools import saved_model_cli

    arguments = ["saved_model_cli", "show", "--dir", str(saved), "--tag_set", "serve"]
    for signature, name, dtype, shape in (
        ("images", "inputs['images']", "DT_UINT8", "(-1, -1, -1, 3)"),
        ("encoded", "inputs['encoded']", "DT_STRING", "(-1)"),
        ("encoded_with_options", "inputs['score_threshold']", "DT_FLOAT", "unknown_rank"),
        ("images_with_options", "inputs['score_threshold']", "DT_FLOAT", "()"),
        ("heatmaps", "outputs['distances']", "DT_FLOAT", "(-1, -1, -1, 4)"),
    ):
        monkeypatch.setattr(sys, "argv", [*arguments, "--signature_def", signature])
        with pytest.raises(SystemExit) as ended:
            saved_model_cli.main()
        assert not ended.value.code
        lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
        start = lines.index(f"{name} tensor_info:")
        assert lines[start + 1 : start + 3] == [f"dtype: {dtype}", f"shape: {shape}"]


def parsed(records):
    """Warm-up records as TensorFlow Serving reads them."""
    reason = "tensorflow_serving, which reads warm-up requests, is not installed"
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason=reason)
    return [logs.PredictionLog.FromString(record) for record in records]


def test_warm_up_requests_are_answered(saved, loaded):
    """As TensorFlow Serving does: each record names a signature of the model, and its inputs fit."""
    signatures = []
    path = saved / "assets.extra" / "tf_serving_warmup_requests"
    for log in parsed(record.numpy() for record in tf.data.TFRecordDataset(str(path))):
        request = log.predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(v)) for name, v in request.inputs.items()}
        found = loaded.signatures[request.model_spec.signature_name](**inputs)
        assert found["num_detections"].shape == (1,)
        signatures.append(request.model_spec.signature_name)
    assert signatures == ["serving_default", "images", "encoded"] * 2


def test_warm_up_requests_are_those_that_serving_s_own_library_writes():
    records = saved_model.warm_up_records()
    logs = parsed(records)
    from tensorflow_serving.apis import prediction_log_pb2

    assert [log.SerializeToString(deterministic=True) for log in logs] == records
    for index, (log, (height, width)) in enumerate(
        zip(logs, np.repeat([(480, 640), (640, 480)], 3, axis=0), strict=True)
    ):
        signature = ("serving_default", "images", "encoded")[index % 3]
        expected = prediction_log_pb2.PredictionLog()
        request = expected.predict_log.request
        request.model_spec.name = "unitbox"
        request.model_spec.signature_name = signature
        image = np.full((height, width, 3), 127, np.uint8)
        if signature != "images":
            value = tf.make_tensor_proto([tf.io.encode_jpeg(image).numpy()])
        else:
            value = tf.make_tensor_proto(image[None])
        request.inputs["images" if signature == "images" else "encoded"].CopyFrom(value)
        assert log == expected
        assert expected.SerializeToString(deterministic=True) == records[index]


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 16_383, 16_384, 921_600, 2**35])
def test_numbers_are_written_as_protocol_buffers_writes_them(value):
    from tensorflow.core.framework import attr_value_pb2

    # Field 3 is an int64: its key is 3 << 3, with wire type 0.
    message = attr_value_pb2.AttrValue(i=value).SerializeToString()
    assert message == bytes([3 << 3]) + saved_model._varint(value)


def test_an_interrupted_export_leaves_nothing(model, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(saved_model, "warm_up_records", interrupted)  # written last
    with pytest.raises(KeyboardInterrupt):
        saved_model.save(model, tmp_path / "detector")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no limits of the length of files")
def test_a_disk_that_is_full_is_an_error_with_the_name_of_the_folder(model, tmp_path):
    import resource

    limits_before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits_before[1]))
    try:
        with pytest.raises(OSError, match=r"/saved: the SavedModel cannot be written: File too"):
            saved_model.save(model, tmp_path / "saved", CARD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits_before)
    assert list(tmp_path.iterdir()) == []
