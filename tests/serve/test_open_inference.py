"""The Open Inference Protocol gives what TensorFlow Serving's protocol gives, in json and in bytes."""

import base64
import json
import struct

import numpy as np
import pytest

from tests.helpers import serving
from unitbox_tf import inputs
from unitbox_tf.serve import open_inference

INFER = "/v2/models/faces/infer"
OUTPUTS = ["boxes", "scores", "classes", "num_detections"]
DTYPES = {"FP32": "<f4", "INT32": "<i4"}


def text(encoded):
    return base64.b64encode(encoded).decode()


def encoded(photos, shape=None):
    data = [text(photo) for photo in photos]
    return {"name": "encoded", "datatype": "BYTES", "shape": shape or [len(photos)], "data": data}


def option(name, datatype, *values):
    return {"name": name, "datatype": datatype, "shape": [len(values)], "data": list(values)}


def arrays(answer):
    return {
        each["name"]: np.array(each["data"], DTYPES[each["datatype"]]).reshape(each["shape"])
        for each in answer["outputs"]
    }


def of_tensorflow(client, photos, **options):
    """The outputs by the other protocol, which is compared with the SavedModel."""
    columns = {"encoded": [serving.b64(photo) for photo in photos], **options}
    asked = {"signature_name": "encoded_with_options", "inputs": columns}
    return client.json("POST", "/v1/models/faces:predict", asked)[1]["outputs"]


def assert_equal(received, expected):
    assert sorted(received) == sorted(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(received[name], np.array(values, received[name].dtype))


def test_it_gives_what_the_other_protocol_gives(client, photos):
    for shape in ([3], [3, 1]):
        asked = {"id": "42", "inputs": [encoded(photos, shape)]}
        status, answer = client.json("POST", INFER, asked)
        assert status == 200
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("faces", "1", "42")
        assert [each["name"] for each in answer["outputs"]] == OUTPUTS
        assert_equal(arrays(answer), of_tensorflow(client, photos))
    assert sum(arrays(answer)["num_detections"]) > 0


def test_data_may_be_nested(client, photos):
    asked = encoded(photos[:2], [2, 1])
    asked["data"] = [[each] for each in asked["data"]]
    status, answer = client.json("POST", INFER, {"inputs": [asked]})
    assert status == 200
    assert "id" not in answer
    assert_equal(arrays(answer), of_tensorflow(client, photos[:2]))


def test_settings_are_inputs(client, photos):
    options = {"score_threshold": [0.02, 0.3, 0.6], "max_detections": [5], "decoder": ["ellipse"]}
    asked = [
        encoded(photos),
        option("score_threshold", "FP32", 0.02, 0.3, 0.6),
        option("max_detections", "INT32", 5),
        option("decoder", "BYTES", "ellipse"),
    ]
    status, answer = client.json("POST", INFER, {"inputs": asked})
    assert status == 200
    assert arrays(answer)["boxes"].shape == (3, 5, 4)
    assert_equal(arrays(answer), of_tensorflow(client, photos, **options))


def test_images_are_another_input(client, photos):
    image = inputs.read_image(photos[0])
    data = image.reshape(-1).tolist()
    asked = {"name": "images", "datatype": "UINT8", "shape": [1, *image.shape], "data": data}
    status, answer = client.json("POST", INFER, {"inputs": [asked]})
    assert status == 200
    assert_equal(arrays(answer), of_tensorflow(client, photos[:1]))


def test_only_the_outputs_that_are_named_are_given(client, photos):
    asked = {"inputs": [encoded(photos[:1])], "outputs": [{"name": "scores"}, {"name": "boxes"}]}
    answer = client.json("POST", INFER, asked)[1]
    assert [each["name"] for each in answer["outputs"]] == ["scores", "boxes"]


def binary_request(photos, **content):
    """A request whose inputs come as bytes after the json."""
    parts = [b"".join(struct.pack("<I", len(photo)) + photo for photo in photos)]
    parts.append(np.float32([0.02]).tobytes())
    parts.append(struct.pack("<I", 7) + b"ellipse")
    names = [("encoded", "BYTES", len(photos)), ("score_threshold", "FP32", 1)]
    named = [
        {
            "name": name,
            "datatype": datatype,
            "shape": [count],
            "parameters": {"binary_data_size": len(part)},
        }
        for (name, datatype, count), part in zip(
            [*names, ("decoder", "BYTES", 1)], parts, strict=True
        )
    ]
    head = json.dumps({"inputs": named, **content}).encode()
    return head + b"".join(parts), str(len(head))


def test_bytes_in_and_out(client, photos):
    wanted = of_tensorflow(client, photos, score_threshold=0.02, decoder="ellipse")
    chosen = [{"name": "boxes"}, {"name": "scores", "parameters": {"binary_data": False}}]
    for content, are_bytes in (
        ({"parameters": {"binary_data_output": True}}, dict.fromkeys(OUTPUTS, True)),
        (
            {"parameters": {"binary_data_output": True}, "outputs": chosen},
            {"boxes": True, "scores": False},
        ),
        (
            {"outputs": [{"name": "classes", "parameters": {"binary_data": True}}]},
            {"classes": True},
        ),
    ):
        body, length = binary_request(photos, **content)
        status, headers, answer = client.ask(
            "POST", INFER, body, inference_header_content_length=length
        )
        assert (status, headers["content-type"]) == (200, "application/octet-stream")
        size = int(headers["inference-header-content-length"])
        rest = answer[size:]
        received = {}
        for each in json.loads(answer[:size])["outputs"]:
            assert ("data" not in each) == are_bytes[each["name"]]
            if "data" not in each:
                taken = each["parameters"]["binary_data_size"]
                each["data"] = np.frombuffer(rest[:taken], DTYPES[each["datatype"]])
                rest = rest[taken:]
            received |= arrays({"outputs": [each]})
        assert rest == b""
        assert_equal(received, {name: wanted[name] for name in are_bytes})


def test_bytes_that_do_not_fit_are_errors(client, photos):
    body, length = binary_request(photos[:1])
    for content, size, message in (
        (body + b"x", length, "as many bytes as inputs take. Received: 1 more"),
        (body[:-1], length, "decoder: a length is larger than the bytes that follow"),
        (body, str(len(body) + 1), "inference-header-content-length: expected at most"),
        (body, "-1", "inference-header-content-length: expected at most"),
        (body, str(int(length) + 3), "expected json"),
        (body.replace(b'[1], "par', b'[2], "par', 1), length, "expected 2 elements. Received: 1"),
        (
            body.replace(b": 4}", b": 3}"),
            length,
            "score_threshold: expected 1 numbers. Received: 3",
        ),
        (body.replace(b": 4}", b":-4}"), length, "binary_data_size: expected a int. Received: -4"),
    ):
        status, _, answer = client.ask("POST", INFER, content, inference_header_content_length=size)
        assert status == 400
        assert message in json.loads(answer)["error"]


def test_health_and_metadata(client):
    assert client.json("GET", "/v2/health/live") == (200, {"live": True})
    assert client.json("GET", "/v2/health/ready") == (200, {"ready": True})
    server = {"name": "unitbox", "version": "0.0", "extensions": ["binary_tensor_data"]}
    assert client.json("GET", "/v2") == client.json("GET", "/v2/") == (200, server)
    for path in ("/v2/models/faces", "/v2/models/faces/versions/1"):
        status, facts = client.json("GET", path)
        assert status == 200
        assert (facts["name"], facts["versions"]) == ("faces", ["1"])
        assert facts["inputs"] == [{"name": "encoded", "datatype": "BYTES", "shape": [-1]}]
        assert [each["name"] for each in facts["outputs"]] == OUTPUTS
        assert client.json("GET", f"{path}/ready") == (200, {"name": "faces", "ready": True})


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v2/models/cats", 404, "Request for unknown model: 'cats' is not found"),
        ("GET", "/v2/models/faces/versions/2", 404, "unknown model: 'faces' version 2"),
        ("POST", "/v2/models/cats/infer", 404, "Request for unknown model"),
        ("GET", INFER, 404, "there is no GET /v2/models/faces/infer"),
        ("POST", "/v2/models/faces", 404, "there is no POST"),
        ("GET", "/v2/repository/index", 404, "there is no GET"),
    ],
)
def test_other_paths_are_errors(client, method, path, status, message):
    received, answer = client.json(method, path, {})
    assert (received, list(answer)) == (status, ["error"])
    assert message in answer["error"]


PHOTO = {"name": "encoded", "datatype": "BYTES", "shape": [1], "data": ["aGVsbG8="]}
SCORE = {"name": "score_threshold", "datatype": "FP32", "shape": [1], "data": [0.5]}
IMAGE = {"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([], "expected one of the inputs encoded and images"),
        ([PHOTO, IMAGE], "expected one of the inputs encoded and images"),
        ([SCORE], "expected one of the inputs encoded and images"),
        (PHOTO, "inputs: expected a list of objects"),
        ([7], "inputs: expected a list of objects"),
        ([PHOTO, PHOTO], "expected inputs of encoded, images, decoder"),
        ([{**PHOTO, "name": "photo"}], "each once. Received: 'photo'"),
        ([{**PHOTO, "name": ["photo"]}], "each once. Received"),
        ([{**PHOTO, "datatype": "UINT8"}], "encoded: expected the datatype BYTES. Received: 'UIN"),
        ([{**PHOTO, "shape": [2]}], "encoded: expected 2 texts in data. Received: 1"),
        ([{**PHOTO, "shape": [1, 1, 1]}], "encoded: expected the shape [B]"),
        ([{**PHOTO, "shape": "1"}], "encoded: expected a shape of whole numbers"),
        ([{**PHOTO, "shape": [-1]}], "encoded: expected a shape of whole numbers"),
        ([{**PHOTO, "data": [1]}], "encoded: expected 1 texts in data"),
        ([{**PHOTO, "data": "aGVsbG8="}], "encoded: expected 1 texts in data. Received: 0"),
        ([{**PHOTO, "data": ["a*b"]}], "encoded: Unable to base64 decode"),
        ([{**PHOTO, "parameters": {"binary_data_size": "4"}}], "binary_data_size: expected a int"),
        ([{**PHOTO, "parameters": 4}], "binary_data_size: expected a int"),
        ([PHOTO], "photo 0: encoded image: expected a JPEG"),
        ([{**PHOTO, "shape": [5], "data": ["YQ=="] * 5}], "expected from 1 to 4 photos"),
        ([PHOTO, {**SCORE, "data": ["a"]}], "score_threshold: expected 1 numbers"),
        ([PHOTO, {**SCORE, "data": [[1], [2, 3]]}], "score_threshold: expected numbers"),
        ([PHOTO, {**SCORE, "data": [7]}], "score_threshold: expected a number from 0 to 1"),
        ([PHOTO, {**SCORE, "shape": [2], "data": [1, 1]}], "expected 1 value or 1. Received: 2"),
        ([{**IMAGE, "shape": [1, 3]}], "images: expected the shape [B, H, W, 3]"),
        ([{**IMAGE, "data": [1, 2]}], "images: expected 3 numbers. Received: 2"),
        ([{**IMAGE, "data": [1, 2, 300]}], "images: expected levels from 0 to 255"),
        ([{**IMAGE, "shape": [1, 3, 1, 1]}], "images: expected whole numbers [B, H, W, 3]"),
        ([{**IMAGE, "shape": [0, 1, 1, 3], "data": []}], "images: expected"),
    ],
)
def test_what_is_no_request_is_an_error(client, asked, message):
    status, answer = client.json("POST", INFER, {"inputs": asked})
    assert (status, list(answer)) == (400, ["error"])
    assert message in answer["error"]


def test_outputs_that_are_none_are_errors(client, photos):
    for outputs, message in (
        ([{"name": "masks"}], "expected outputs of boxes, scores"),
        ("boxes", "outputs: expected a list of objects"),
        (
            [{"name": "boxes", "parameters": {"binary_data": 1}}],
            "binary_data: expected a bool. Received: 1",
        ),
    ):
        asked = {"inputs": [encoded(photos[:1])], "outputs": outputs}
        status, answer = client.json("POST", INFER, asked)
        assert status == 400
        assert message in answer["error"]
    asked = {"inputs": [encoded(photos[:1])], "id": 7}
    assert client.json("POST", INFER, asked) == (400, {"error": "id: expected a text"})


def test_the_outputs_are_those_of_the_other_protocol():
    from unitbox_tf.serve import tensorflow_rest

    assert list(open_inference._OUTPUTS) == list(tensorflow_rest._OUTPUTS) == OUTPUTS
    for name, (_, shape) in open_inference._OUTPUTS.items():
        assert tensorflow_rest._OUTPUTS[name][1] == shape
