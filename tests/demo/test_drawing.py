import numpy as np

from tests.helpers.demo import seen_of
from unitbox_tf import visualize
from unitbox_tf.demo import drawing
from unitbox_tf.records import Detections


def test_distances_have_the_colours_of_their_scale_where_something_is():
    logits = np.full((40, 40, 1), -9.0)
    logits[:, 20:] = 9.0
    seen = seen_of(logits, np.ones((40, 40, 4)) * [10, 20, 30, 40], (40, 40))
    pictures, highest = drawing.draw_distances(seen, 0)
    assert highest == 40
    for picture, distance in zip(pictures, (10, 20, 30, 40), strict=True):
        colour = visualize.heatmap(np.full((1, 1), distance, np.float32), 0, 40)[0, 0]
        np.testing.assert_array_equal(picture[20, 30], colour)
        assert len(set(picture[20, 10].tolist())) == 1  # grey
    pictures, _ = drawing.draw_distances(seen, 0, everywhere=True)
    assert len(set(pictures[0][20, 10].tolist())) > 1


def test_a_map_without_anything_says_so():
    seen = seen_of(np.full((4, 4, 1), -9.0), np.ones((4, 4, 4)), (4, 4))
    assert "No pixel has a confidence of 0.5 or more" in drawing.maps_html(seen, 0)
    assert "No pixel" not in drawing.maps_html(seen, 0, everywhere=True)


def test_the_page_says_the_size_that_the_network_saw_and_the_stride():
    maps = np.zeros((3, 4, 1)), np.ones((3, 4, 4))
    page = drawing.maps_html(seen_of(*maps, (40, 60), (10, 15), 4), 0)
    assert "Shown to the network with 15 x 10 px. The maps have a point each 4 px." in page
    assert "px.</p>" in drawing.maps_html(seen_of(*maps, (3, 4)), 0)
    assert "a point each" not in drawing.maps_html(seen_of(*maps, (3, 4)), 0)


def test_names_are_text_and_no_part_of_the_page():
    seen = seen_of(np.zeros((4, 4, 2)), np.ones((4, 4, 4)), (4, 4))
    found = Detections(np.float32([[0, 0, 2, 2]]), np.float32([0.5]), np.int32([1]), (4, 4))
    names = ("a", "<script>")
    pages = (
        drawing.summary_html("<script>.jpg", seen, found, 1.0),
        drawing.image_html(seen, found, names),
        drawing.table_html(found, names),
        drawing.error_html("<script>.jpg: expected an image"),
    )
    for page in pages:
        assert "&lt;script&gt;" in page
        assert "<script" not in page


def test_boxes_stand_where_the_table_says():
    seen = seen_of(np.zeros((4, 4, 1)), np.ones((4, 4, 4)), (50, 200))
    found = Detections(np.float32([[20, 10, 60, 35]]), np.float32([0.5]), np.int32([0]), (50, 200))
    style = "left: 10.00%; top: 20.00%; width: 20.00%; height: 50.00%"
    assert style in drawing.image_html(seen, found, ("face",))
    assert "<td>20.0</td><td>10.0</td><td>60.0</td><td>35.0</td>" in drawing.table_html(
        found, ("face",)
    )
