import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitbox_tf import images, visualize

BOX = np.array([[40.0, 30, 100, 110]])


@pytest.fixture
def photo(random):
    return random.integers(0, 256, (160, 200, 3), dtype=np.uint8)


def changed(before, after):
    return (before != after).any(axis=-1)


@pytest.mark.parametrize("shape", ["box", "ellipse"])
def test_outside_the_widened_box_nothing_changes(photo, shape):
    untouched = photo.copy()
    blurred = visualize.blur(photo, BOX, margin=0.25, shape=shape)
    np.testing.assert_array_equal(photo, untouched)
    outside = np.ones(photo.shape[:2], bool)
    outside[10:130, 25:115] = False
    assert not changed(photo, blurred)[outside].any()
    assert blurred.dtype == np.uint8


def test_the_ellipse_covers_the_box_and_leaves_corners_of_the_widened_one(photo):
    touched = changed(photo, visualize.blur(photo, BOX))
    # A pixel of noise may by chance have the colour that it is given.
    assert touched[30:110, 40:100].mean() > 0.999
    for row, column in ((10, 25), (10, 114), (129, 25), (129, 114)):
        assert not touched[row, column]
    assert changed(photo, visualize.blur(photo, BOX, shape="box"))[10:130, 25:115].mean() > 0.999


def noise(seed, mean, height=80, width=60):
    values = np.random.default_rng(seed).normal(0, 60, (height, width, 3))
    return np.clip(values + mean, 0, 255).astype(np.uint8)


def test_two_patterns_are_nearly_the_same_once_blurred():
    blurred = []
    for seed, mean in ((1, 100), (2, 140)):
        image = np.full((160, 200, 3), 128, np.uint8)
        image[30:110, 40:100] = noise(seed, mean)
        inside = visualize.blur(image, BOX, margin=0, shape="box")[30:110, 40:100].astype(float)
        blurred.append(inside - inside.mean(axis=(0, 1)))
    before = noise(1, 100).astype(float) - noise(2, 140)
    assert before.std() > 70
    assert np.abs(blurred[0] - blurred[1]).max() < 15
    assert (blurred[0] - blurred[1]).std() < 4


@pytest.mark.parametrize("side", [3, 5, 8, 15, 40, 150])
def test_within_a_block_nothing_of_the_pattern_stays(side):
    # Stripes: if any pixel of a face came through, neighbours would differ.
    image = np.zeros((160, 160, 3), np.uint8)
    image[:, ::2] = 255
    inside = visualize.blur(image, np.array([[0, 0, side, side]]), 0, "box")[:side, :side]
    assert np.abs(np.diff(inside.astype(int), axis=1)).max() <= 40
    assert inside.std() < 30


@pytest.mark.parametrize(
    ("box", "block"),
    [((0, 0, 160, 160), 40), ((-60, -60, 60, 60), 30)],
    ids=["whole", "cut by the border"],
)
def test_a_blurred_photo_says_no_more_than_its_blocks(photo, box, block):
    # Images whose blocks have the same means become the same: 16 colours of a face are all it keeps.
    shuffled = photo.copy()
    pixels = shuffled[:block, :block].reshape(-1, 3)
    np.random.default_rng(1).shuffle(pixels)
    shuffled[:block, :block] = pixels.reshape(block, block, 3)
    assert changed(photo, shuffled).any()
    end = box[2]
    np.testing.assert_array_equal(
        visualize.blur(photo, np.array([box]), 0, "box")[:end, :end],
        visualize.blur(shuffled, np.array([box]), 0, "box")[:end, :end],
    )


@given(
    st.floats(-30, 60), st.floats(-30, 60), st.floats(0, 40), st.floats(0, 40), st.floats(0, 0.5)
)
def test_boxes_of_any_size_and_place_change_only_what_lies_near_them(x, y, width, height, margin):
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    for shape in ("box", "ellipse"):
        blurred = visualize.blur(image, np.array([[x, y, x + width, y + height]]), margin, shape)
        assert blurred.shape == image.shape
        ys, xs = np.nonzero(changed(image, blurred))
        if len(xs):
            assert xs.min() >= np.floor(x - margin * width)
            assert ys.min() >= np.floor(y - margin * height)
            assert xs.max() < max(np.ceil(x + width * (1 + margin)), np.floor(x) + 1)
            assert ys.max() < max(np.ceil(y + height * (1 + margin)), np.floor(y) + 1)


def test_a_tiny_box_is_blurred_all_the_same(photo):
    touched = changed(photo, visualize.blur(photo, np.array([[50.4, 50.4, 52.1, 52.3]])))
    assert touched[50:52, 50:52].all()
    assert touched.sum() <= 16


def test_without_boxes_the_photo_stays(photo):
    np.testing.assert_array_equal(visualize.blur(photo, np.zeros((0, 4))), photo)


@pytest.mark.parametrize("wrong", [{"margin": -0.1}, {"shape": "circle"}])
def test_a_wrong_margin_or_shape_is_refused(photo, wrong):
    with pytest.raises(ValueError, match="Expected a margin from 0 and a shape of ellipse or box"):
        visualize.blur(photo, BOX, **wrong)


def test_boxes_far_outside_are_drawn_as_far_as_they_are_seen():
    image = np.zeros((40, 60, 3), np.uint8)
    far = np.array(
        [[1e12, 1e12, 2e12, 2e12], [-1e300, -9e99, -1e30, -5e40], [-np.inf, 0, np.inf, 1e9]]
    )
    drawn = visualize.draw_boxes(image, far, (255, 0, 0), ["a", "b", "c"])
    assert drawn[0, :, 0].all()  # the top of the last box is in the image
    near = visualize.draw_boxes(image, np.array([[-50.0, 3, 70, 90]]), (255, 0, 0))
    np.testing.assert_array_equal(
        near, visualize.draw_boxes(image, np.array([[-5e9, 3, 7e9, 9e9]]), (255, 0, 0))
    )


def test_a_picture_of_no_known_format_is_not_written(tmp_path):
    image = np.zeros((4, 5, 3), np.uint8)
    images.save_image(image, str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").is_file()
    with pytest.raises(OSError, match=r"a\.xyz: could not be encoded"):
        images.save_image(image, tmp_path / "a.xyz")


HISTORY = [
    {"iterations": 10, "loss": 2.0, "val_loss": 2.5, "val_ap50": 0.25, "val_coco_ap": 0.125},
    {"iterations": 20, "loss": 1.0, "val_loss": 1.5, "val_ap50": 0.75, "val_coco_ap": 0.5},
]


def test_the_curves_of_a_run_are_plotted_and_notebooks_keep_their_backend(tmp_path, monkeypatch):
    import matplotlib
    from matplotlib import pyplot

    monkeypatch.setitem(matplotlib.rcParams, "backend", "svg")
    visualize.save_history(HISTORY, tmp_path / "a.png", ["val_coco_ap"])
    visualize.save_history(HISTORY, tmp_path / "b.png")
    assert matplotlib.get_backend() == "svg"
    assert not pyplot.get_fignums()
    with_more, without = (cv2.imread(str(tmp_path / name)) for name in ("a.png", "b.png"))
    assert with_more.shape == without.shape == (440, 1210, 3)
    difference = (with_more != without).any(axis=(0, 2))
    assert not difference[:600].any()  # the losses are the same
    assert difference[600:].any()


def test_without_matplotlib_plots_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install 'unitbox_tf\[plots\]'"):
        visualize.save_history(HISTORY, tmp_path / "a.png")


def test_importing_does_without_matplotlib():
    code = "import sys, unitbox_tf.visualize; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_points_of_a_stride_fill_their_squares_and_are_cut():
    values = np.arange(6).reshape(2, 3)
    expected = [[0, 0, 0, 1, 1, 1, 2], [0, 0, 0, 1, 1, 1, 2], [0, 0, 0, 1, 1, 1, 2]]
    expected += [[3, 3, 3, 4, 4, 4, 5]]
    np.testing.assert_array_equal(visualize.at_pixels(values, 3, (4, 7)), expected)
    assert visualize.at_pixels(values, 1, (2, 3)) is values


def test_a_panel_of_a_stride_has_the_size_that_the_network_saw():
    image = np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8)
    logits = np.full((3, 4, 1), -40.0)
    logits[2, 3] = 40.0
    panel = visualize.heatmap_panel(image, logits, np.full((3, 4, 4), 5.0), 4, (10, 14))
    assert panel.shape == (10, 42, 3)
    low, high = (visualize.heatmap(np.full((1, 1), v), 0, 1)[0, 0] for v in (0, 1))
    np.testing.assert_array_equal(panel[8:, 14 + 12 : 28], np.broadcast_to(high, (2, 2, 3)))
    np.testing.assert_array_equal(panel[:8, 14:28], np.broadcast_to(low, (8, 14, 3)))
