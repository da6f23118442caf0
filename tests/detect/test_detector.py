import dataclasses
import io
import os
import shutil
import sys

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import unitbox_tf
from tests.helpers.images import exif_jpeg, picture
from unitbox_tf import inputs, runs
from unitbox_tf.config import DecodeConfig
from unitbox_tf.datasets import synthetic
from unitbox_tf.detect import detector
from unitbox_tf.limits import TooLarge
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation, Detections


@pytest.fixture(scope="module")
def found(untrained_run):
    return unitbox_tf.load(untrained_run)


def test_a_photo_may_be_an_array_bytes_or_a_path(found, tmp_path):
    encoded = synthetic.draw(0).image
    path = tmp_path / "photo.png"
    path.write_bytes(encoded)
    rgb = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    results = [found(encoded), found(path), found(str(path)), found(rgb)]
    results.append(found(Image.open(path)))
    results.extend(result for _, result in found.many([path, rgb]))
    for result in results:
        np.testing.assert_array_equal(result.boxes, results[0].boxes)
        assert result.image_size == (96, 96)


def left_edge(image):
    """A detector that takes no time: the brightness of the image, as a place."""
    box = np.float32([[image.mean(), 0, 256, 9]])
    return Detections(box, np.float32([1]), np.int32([0]), image.shape[:2])


quick = detector.Detector(left_edge, ("object",), DecodeConfig())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Five images, the third of them broken, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        content = synthetic.draw(number).image if number != 2 else b"no image"
        (tmp_path / f"{number}.png").write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("images", [".", "*.png", [f"{number}.png" for number in range(5)]])
def test_of_many_photos_the_broken_are_reported_or_raised(folder, images):
    with pytest.raises(ValueError, match=r"2\.png: expected a JPEG, PNG, .* or WebP image"):
        list(quick.many(images))
    problems = Problems()
    found = list(quick.many(images, problems=problems))
    assert [name for name, _ in found] == ["0.png", "1.png", "3.png", "4.png"]
    for name, detections in found:
        np.testing.assert_array_equal(detections.boxes, quick(name).boxes)
    assert [str(problem)[:39] for problem in problems.found] == [
        "2.png: expected a JPEG, PNG, BMP, GIF, "
    ]


def test_many_photos_are_read_as_they_are_asked_for(folder):
    found = quick.many(["0.png", "gone.png"])
    assert next(found).name == "0.png"
    (folder / "gone.png").write_bytes(synthetic.draw(7).image)
    assert len(next(found).detections) == 1
    with pytest.raises(ValueError, match="no file matches"):
        quick.many("*.jpg")  # before anything is asked for


def test_a_terminal_shows_the_progress_of_many_photos(folder, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert len(list(quick.many(["0.png"] * 4, progress=True))) == 4
    assert "detecting" in sys.stderr.getvalue()
    assert "100%" in sys.stderr.getvalue()
    monkeypatch.setattr(sys, "stderr", Terminal())
    list(quick.many(["0.png"] * 4))
    assert not sys.stderr.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_is_read_alike_by_pillow(mode, random):
    if mode == "I;16":
        image = Image.fromarray(random.integers(0, 1 << 16, (9, 7), np.uint16))
    else:
        channels = 4 if mode in ("LA", "RGBA") else 3
        image = Image.fromarray(random.integers(0, 256, (9, 7, channels), np.uint8)).convert(mode)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    expected = inputs.read_image(encoded.getvalue())
    for given in (image, Image.open(encoded)):
        assert given.mode == mode
        np.testing.assert_array_equal(inputs.read_image(given), expected)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_orientation_of_a_pillow_image_is_applied_as_that_of_its_file(orientation):
    encoded = exif_jpeg(picture(), orientation, "little")
    by_pillow = inputs.read_image(Image.open(io.BytesIO(encoded))).astype(int)
    expected = inputs.read_image(encoded)
    assert by_pillow.shape == expected.shape
    assert np.abs(by_pillow - expected).mean() < 3  # decoders differ


def test_pillow_images_of_other_modes_are_rgb():
    for mode in ("CMYK", "YCbCr", "HSV", "RGBX"):
        image = inputs.read_image(Image.new("RGB", (4, 3), (200, 10, 30)).convert(mode))
        assert image.shape == (3, 4, 3), mode
        np.testing.assert_allclose(image[0, 0], (200, 10, 30), atol=3)
    with pytest.raises(ValueError, match=r"levels from 0 to 255, .* Received: mode F"):
        inputs.read_image(Image.new("F", (4, 3)))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (".", "expected one image, received a folder: Detector.many takes it"),
        ("*.png", "expected one image, received a pattern: Detector.many takes it"),
        ("clip.mp4", "received a video: Detector.frames takes it"),
        ("https://example.org/a.jpg", "nothing is downloaded"),
        (["0.png"], "Expected a path, .* Received: list"),
        (0, "Received: int"),
    ],
)
def test_what_is_not_one_photo_is_refused(folder, image, message):
    with pytest.raises(ValueError, match=message):
        quick(image)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_other_arrays_are_refused(found, image):
    with pytest.raises(ValueError, match=r"Expected an RGB image uint8 \[H, W, 3\]. Received:"):
        found(image)


def test_what_is_no_photo_is_named(found, tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("not an image")
    with pytest.raises(
        ValueError, match=r"notes\.jpg: expected a JPEG, .*WebP image, which these 12"
    ):
        found(path)
    with pytest.raises(ValueError, match="encoded image: expected"):
        found(b"")
    with pytest.raises(FileNotFoundError):
        found(tmp_path / "gone.jpg")


def test_each_decoder_can_be_chosen(untrained_run):
    image = np.full((30, 50, 3), 200, np.uint8)
    for decoder in ("peaks", "ellipse"):
        find = unitbox_tf.load(untrained_run, decoder=decoder, score_threshold=0.0)
        assert find.decode.decoder == decoder
        result = find(image)
        assert result.image_size == (30, 50)
        assert (result.boxes <= [50, 30, 50, 30]).all()


def test_an_exported_model_is_opened_alike(untrained_run):
    exported = unitbox_tf.load(untrained_run / "saved_model")
    run = unitbox_tf.load(untrained_run)
    assert exported.class_names == run.class_names == ("object", "other")
    for number in range(5):
        image = synthetic.draw(number).image
        a, b = exported(image), run(image)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=0.5)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-3)


def test_a_saved_model_of_others_is_named(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "other"))
    with pytest.raises(ValueError, match="other: expected a SavedModel that unitbox_tf exported"):
        unitbox_tf.load(tmp_path / "other")


def test_folders_that_hold_no_detector_are_named(untrained_run, tmp_path):
    with pytest.raises(ValueError, match=r"gone: expected the folder of a run .* does not exist"):
        unitbox_tf.load(tmp_path / "gone")
    with pytest.raises(ValueError, match="Unknown field of DecodeConfig: 'threshold'"):
        unitbox_tf.load(untrained_run, threshold=0.5)
    shutil.copy(untrained_run / "config.json", tmp_path)
    with pytest.raises(ValueError, match="the run has stored no weights yet"):
        unitbox_tf.load(tmp_path)
    runs.Run(tmp_path).best.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"best\.weights\.h5: expected the weights of the model"):
        unitbox_tf.load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with pipes")
@pytest.mark.parametrize("suffix", [".keras", ".onnx", ".tflite"])
def test_a_special_file_in_the_place_of_a_model_is_named(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"expected a regular file\. Received: a named pipe"):
        unitbox_tf.load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"expected a regular file\. Received: a folder"):
        unitbox_tf.load(path)


def test_photos_that_cannot_be_read_are_left_out_and_reported(found):
    good = synthetic.draw(0)
    broken = dataclasses.replace(good, name="broken", image=b"nonsense")
    problems = Problems()
    detections, annotations = detector.detect_annotated(
        found, [good, broken, good], problems=problems
    )
    assert len(detections) == 2
    assert [a.name for a in annotations] == [good.name] * 2
    assert [p.where for p in problems.found] == ["broken"]
    assert isinstance(annotations[0], Annotation)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_detector_made_before_a_fork_says_so():
    nothing = Detections([], [], [], (9, 9))
    find = detector.Detector(lambda image: nothing, ("a",), DecodeConfig())
    image = np.zeros((9, 9, 3), np.uint8)
    assert find(image) == nothing
    child = os.fork()
    if child == 0:
        said = 0
        for use in (lambda: find(image), lambda: next(find.many([image])), lambda: find.read(b"")):
            try:
                use()
            except RuntimeError as error:
                said += "Make the detector after the fork" in str(error)
        os._exit(said)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_a_model_made_before_a_fork_says_so(untrained_run, monkeypatch):
    model = unitbox_tf.UnitBox.from_preset(untrained_run)
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    with pytest.raises(RuntimeError, match=rf"made in process {pid}, .* forked"):
        model.detect(np.zeros((9, 9, 3), np.uint8))


class ResourceExhaustedError(Exception):
    """As TensorFlow calls it."""


@pytest.mark.parametrize(
    "error", [MemoryError(), ResourceExhaustedError("OOM when allocating tensor")]
)
def test_an_image_for_which_memory_does_not_suffice_is_a_problem(error, folder):
    def find(image):
        if image.mean() > 200:
            raise error
        return left_edge(image)

    photos = [np.full((8, 9, 3), level, np.uint8) for level in (10, 250, 30)]
    made = detector.Detector(find, ("object",), DecodeConfig())
    problems = Problems()
    assert [name for name, _ in made.many(photos, problems=problems)] == ["image 0", "image 2"]
    [problem] = problems.found
    assert problem.message.startswith("memory does not suffice to detect in an image of 9 x 8")
    with pytest.raises(MemoryError, match="memory does not suffice to detect"):
        list(made.many(photos))
    annotations = [Annotation(str(i), photo, np.zeros((0, 4))) for i, photo in enumerate(photos)]
    assert len(detector.detect_annotated(made, annotations)[0]) == 2


def test_memory_that_does_not_suffice_to_decode_names_the_image(folder, monkeypatch):
    def decode(encoded, max_pixels):
        raise MemoryError("memory does not suffice to decode this image")

    made = detector.Detector(left_edge, ("object",), DecodeConfig(), decode)
    with pytest.raises(MemoryError, match="encoded image: memory does not suffice"):
        made(b"anything")
    problems = Problems()
    assert list(made.many([b"anything"], problems=problems)) == []
    assert len(problems.found) == 1


def test_an_error_of_the_network_stays_as_it_is():
    def find(image):
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        detector.Detector(find, ("object",), DecodeConfig())(np.zeros((8, 9, 3), np.uint8))


def test_the_budget_of_pixels_holds_for_every_form_of_an_image(tmp_path):
    array = np.zeros((8, 9, 3), np.uint8)
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), array)
    exact = detector.Detector(left_edge, ("object",), DecodeConfig(max_pixels=72))
    tight = detector.Detector(left_edge, ("object",), DecodeConfig(max_pixels=71))
    for image in (
        array,
        path,
        str(path),
        path.read_bytes(),
        Image.open(path),
        Image.fromarray(array),
    ):
        assert len(exact(image)) == 1
        with pytest.raises(TooLarge, match="at most 71 pixels"):
            tight(image)
    problems = Problems()
    assert list(tight.many([array, path, Image.open(path)], problems=problems)) == []
    assert [problem.where for problem in problems.found] == ["image 0", path.as_posix()]
