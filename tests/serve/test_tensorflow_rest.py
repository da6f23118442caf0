"""Answers, statuses and errors are those of TensorFlow Serving for the signatures of our SavedModels.

The numbers are compared with the signatures themselves, and the json with TensorFlow Serving's own messages.
"""

import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.serving import b64
from unitbox_tf import inputs
from unitbox_tf.serve import question, tensorflow_rest

PREDICT = "/v1/models/faces:predict"
OPTIONS = {
    "decoder": "ellipse",
    "score_threshold": 0.02,
    "blob_threshold": 0.4,
    "nms_iou": 0.3,
    "max_detections": 7,
}
TYPES = {"decoder": tf.string, "max_detections": tf.int32}


def run(signatures, name, **values):
    """The outputs of a signature, as arrays."""
    given = {n: tf.constant(v, TYPES.get(n)) for n, v in values.items()}
    return {n: v.numpy() for n, v in signatures[name](**given).items()}


def assert_equal(received, expected):
    assert set(received) == set(expected)
    for name, values in expected.items():
        array = np.array(received[name], values.dtype)
        assert array.shape == values.shape
        np.testing.assert_allclose(array, values, atol=1e-3, err_msg=name)
    assert np.sum(expected["num_detections"]) > 0


@pytest.mark.parametrize("signature", ["serving_default", "encoded"])
def test_encoded_photos_give_what_the_signature_gives(client, signatures, photos, signature):
    expected = run(signatures, signature, encoded=photos)
    encoded = [b64(photo) for photo in photos]
    named = {} if signature == "serving_default" else {"signature_name": signature}
    for columns in (encoded, {"encoded": encoded}):
        status, answer = client.json("POST", PREDICT, {**named, "inputs": columns})
        assert (status, list(answer)) == (200, ["outputs"])
        assert_equal(answer["outputs"], expected)
    for rows in (encoded, [{"encoded": each} for each in encoded]):
        status, answer = client.json("POST", PREDICT, {**named, "instances": rows})
        assert (status, list(answer)) == (200, ["predictions"])
        assert_equal({n: [row[n] for row in answer["predictions"]] for n in expected}, expected)


def test_images_give_what_the_signature_gives(client, signatures, photos):
    image = inputs.read_image(photos[0])
    batch = np.stack([image, image[::-1]])
    expected = run(signatures, "images", images=batch)
    for form, answered in (("instances", "predictions"), ("inputs", "outputs")):
        asked = {"signature_name": "images", form: batch.tolist()}
        status, answer = client.json("POST", PREDICT, asked)
        assert status == 200
        given = answer[answered]
        if form == "instances":
            given = {n: [row[n] for row in given] for n in expected}
        assert_equal(given, expected)


def test_settings_give_what_the_signatures_give(client, signatures, photos):
    expected = run(signatures, "encoded_with_options", encoded=photos, **OPTIONS)
    assert expected["boxes"].shape == (3, 7, 4)
    encoded = [b64(photo) for photo in photos]
    ask = {"signature_name": "encoded_with_options"}
    columns = [
        {"encoded": encoded, **OPTIONS},
        {"encoded": encoded, **{name: [value] for name, value in OPTIONS.items()}},
        {"encoded": encoded, **{name: [value] * 3 for name, value in OPTIONS.items()}},
        {"encoded": encoded, **OPTIONS, "decoder": b64(b"ellipse")},
    ]
    for each in columns:
        status, answer = client.json("POST", PREDICT, {**ask, "inputs": each})
        assert status == 200, answer
        assert_equal(answer["outputs"], expected)
    image = inputs.read_image(photos[0])
    expected = run(signatures, "images_with_options", images=image[None], **OPTIONS)
    asked = {"signature_name": "images_with_options"}
    asked["inputs"] = {"images": [image.tolist()], **OPTIONS}
    assert_equal(client.json("POST", PREDICT, asked)[1]["outputs"], expected)


def test_each_row_has_settings_of_its_own(client, signatures, photos):
    """Which the signature takes as vectors."""
    own = {"score_threshold": [0.02, 0.3, 0.9], "max_detections": [3, 9, 5], "nms_iou": [0.2] * 3}
    all_of_them = {**own, "decoder": ["peaks", "ellipse", "peaks"], "blob_threshold": [0.5] * 3}
    expected = run(signatures, "encoded_with_options", encoded=photos, **all_of_them)
    rows = [
        {"encoded": b64(photo), **{name: column[index] for name, column in all_of_them.items()}}
        for index, photo in enumerate(photos)
    ]
    asked = {"signature_name": "encoded_with_options", "instances": rows}
    status, answer = client.json("POST", PREDICT, asked)
    assert status == 200
    assert_equal({n: [row[n] for row in answer["predictions"]] for n in expected}, expected)


def test_settings_that_are_left_out_are_those_of_the_detector(client, detector, photos):
    asked = {"signature_name": "encoded_with_options"}
    asked["inputs"] = {"encoded": [b64(photos[0])], "score_threshold": 1}
    outputs = client.json("POST", PREDICT, asked)[1]["outputs"]
    assert outputs["num_detections"] == [0]  # a whole number is a number
    assert np.shape(outputs["boxes"]) == (1, detector.decode.max_detections, 4)


PHOTO = {"b64": "aGVsbG8="}


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "text"),
    [
        ("GET", "/v1/models/cats", None, 404, "Servable not found for request: Latest(cats)"),
        ("GET", "/v1/models/faces/versions/2", None, 404, "Specific(faces, 2)"),
        ("GET", "/v1/models/faces/labels/x", None, 400, "Malformed request: GET /v1/models/faces/"),
        ("GET", PREDICT, None, 400, "Malformed request: GET /v1/models/faces:predict"),
        ("POST", "/v1/models/faces", {}, 400, "Malformed request: POST"),
        ("POST", "/v1/models/faces:classify", {}, 400, "Expected the method predict"),
        ("POST", "/v1/models/cats:predict", {}, 404, "Servable not found"),
        ("POST", PREDICT, [], 400, "expected a json object. Received: list"),
        ("POST", PREDICT, {}, 400, "expected one of the keys 'instances' and 'inputs'"),
        ("POST", PREDICT, {"instances": [PHOTO], "inputs": [PHOTO]}, 400, "expected one of"),
        ("POST", PREDICT, {"signature_name": 1, "inputs": [PHOTO]}, 400, "must be a string"),
        (
            "POST",
            PREDICT,
            {"signature_name": "heatmaps", "inputs": [PHOTO]},
            400,
            'Serving signature name: "heatmaps" not found in signature def',
        ),
        ("POST", PREDICT, {"instances": []}, 400, "Expecting 'instances' to be a list"),
        ("POST", PREDICT, {"instances": PHOTO}, 400, "Expecting 'instances' to be a list"),
        ("POST", PREDICT, {"inputs": PHOTO}, 400, "encoded: expected a list"),
        ("POST", PREDICT, {"inputs": {"photo": [PHOTO]}}, 400, "Missing named input: encoded"),
        ("POST", PREDICT, {"instances": [PHOTO, {"encoded": PHOTO}]}, 400, "only objects"),
        ("POST", PREDICT, {"inputs": {"encoded": [PHOTO], "nms_iou": 1}}, 400, "named input: nms"),
        ("POST", PREDICT, {"inputs": [{"b64": "a*b"}]}, 400, "Unable to base64 decode"),
        ("POST", PREDICT, {"inputs": [7]}, 400, 'encoded: expected {"b64": TEXT}. Received: int'),
        ("POST", PREDICT, {"inputs": [PHOTO] * 5}, 400, "expected from 1 to 4 photos"),
        ("POST", PREDICT, {"inputs": []}, 400, "expected from 1 to 4 photos"),
        ("POST", PREDICT, {"inputs": [PHOTO]}, 400, "photo 0: encoded image: expected a JPEG, PNG"),
        ("POST", PREDICT, {"inputs": ["text"]}, 400, "photo 0: encoded image: expected a JPEG"),
    ],
)
def test_errors_have_the_status_and_the_form(client, method, path, content, status, text):
    received, answer = client.json(method, path, content)
    assert (received, list(answer)) == (status, ["error"]), answer
    assert text in answer["error"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"decoder": "circle"}, "decoder: "),
        ({"score_threshold": 2}, "score_threshold: expected a number from 0 to 1"),
        ({"score_threshold": "high"}, "score_threshold: "),
        ({"score_threshold": float("nan")}, "score_threshold: "),
        ({"max_detections": 0}, "max_detections: "),
        ({"max_detections": True}, "max_detections: "),
        ({"max_detections": [1, 2]}, "max_detections: expected 1 value or 3. Received: 2"),
        ({"max_pixels": 10**9}, "does not have named input: max_pixels"),
    ],
)
def test_settings_that_are_none_are_errors(client, photos, options, text):
    columns = {"encoded": [b64(photo) for photo in photos], **options}
    asked = {"signature_name": "encoded_with_options", "inputs": columns}
    status, answer = client.json("POST", PREDICT, asked)
    assert status == 400
    assert text in answer["error"]


@pytest.mark.parametrize(
    ("images", "text"),
    [
        ([[[1, 2, 3]]], "expected whole numbers [B, H, W, 3]. Received: int64 [1, 1, 3]"),
        ([[[[1, 2]]]], "Received: int64 [1, 1, 1, 2]"),
        ([[[[1, 2, 0.5]]]], "Received: float64"),
        ([[[[1, 2, 256]]]], "expected levels from 0 to 255. Received: 1 to 256"),
        ([[[[1, 2, -1]]]], "expected levels from 0 to 255. Received: -1 to 2"),
        ([[[[1, 2, 3]]], [[[1, 2, 3], [1, 2, 3]]]], "expected images of one size"),
        ([[]], "expected whole numbers"),
        ([[[["a", "b", "c"]]]], "expected whole numbers"),
    ],
)
def test_arrays_that_are_no_images_are_errors(client, images, text):
    status, answer = client.json("POST", PREDICT, {"signature_name": "images", "inputs": images})
    assert status == 400
    assert text in answer["error"]


def test_a_photo_that_cannot_be_read_is_named_and_fails_its_request(client, photos):
    asked = {"inputs": [b64(photos[0]), b64(photos[1][:100])]}
    status, answer = client.json("POST", PREDICT, asked)
    assert status == 400
    assert answer["error"].startswith("photo 1: encoded image: the file is cut off")
    assert client.counted("unitbox_decode_failures_total") == 1


def test_the_status_is_a_message_of_tensorflow_serving(client):
    from google.protobuf import json_format

    messages = pytest.importorskip("tensorflow_serving.apis.get_model_status_pb2")
    for path in ("/v1/models/faces", "/v1/models/faces/versions/1"):
        status, answer = client.json("GET", path)
        parsed = json_format.ParseDict(answer, messages.GetModelStatusResponse())
        [version] = parsed.model_version_status
        assert (status, version.version) == (200, 1)
        assert version.state == messages.ModelVersionStatus.AVAILABLE
        assert json_format.MessageToDict(
            parsed,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        ) == {
            "model_version_status": [
                {"version": "1", "state": "AVAILABLE", "status": version_status(answer)}
            ]
        }


def version_status(answer):
    return answer["model_version_status"][0]["status"]


def test_the_metadata_are_those_of_the_saved_model(client, saved):
    """All but the names of tensors in its graph, and the signature of heatmaps."""
    from google.protobuf import json_format
    from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

    stored = saved_model_pb2.SavedModel()
    stored.ParseFromString((saved / "saved_model.pb").read_bytes())
    status, answer = client.json("GET", "/v1/models/faces/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "faces", "signature_name": "", "version": "1"}
    received = answer["metadata"]["signature_def"]["signature_def"]
    expected = stored.meta_graphs[0].signature_def
    assert set(received) == set(expected) - {"heatmaps", "__saved_model_init_op"}
    for name, signature in received.items():
        parsed = json_format.ParseDict(signature, meta_graph_pb2.SignatureDef())
        assert parsed.method_name == expected[name].method_name
        for side in ("inputs", "outputs"):
            ours, theirs = getattr(parsed, side), getattr(expected[name], side)
            assert set(ours) == set(theirs)
            for key, tensor in ours.items():
                assert tensor.dtype == theirs[key].dtype, (name, key)
                if side == "inputs":
                    assert tensor.tensor_shape == theirs[key].tensor_shape, (name, key)


@hypothesis.given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_numbers_in_json_give_back_the_float32(values):
    array = np.array(values, np.float32)
    text = json.dumps(question.plain(array))
    np.testing.assert_array_equal(np.array(json.loads(text), np.float32), array)


@hypothesis.given(st.binary(max_size=50), st.integers(0, 20))
def test_base64_may_lack_its_end_and_have_spaces(content, place):
    text = b64(content)["b64"].rstrip("=")
    broken = f"{text[:place]}\n {text[place:]}"
    assert tensorflow_rest.from_base64(broken, "x") == content
