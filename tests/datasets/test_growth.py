"""Work grows with the size of what is read, not with its square.

Each case is done at two sizes. At the double size it takes about twice the processor time; work of the square takes
four times as long.
"""

import json
import time

import pytest

from tests.helpers.data_sets import photo, png
from unitbox_tf import datasets
from unitbox_tf.evaluation import results
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

MOST = 3.0  # times the work for the double size


def load(text, **more):
    try:
        return datasets.load(text, photos=False, problems=Problems(logged=False), **more)
    except ValueError as error:
        return str(error)


def table(root, count, row):
    lines = ["image,x0,y0,x1,y1,class", *(row.format(n) for n in range(count))]
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")


def unknown_classes(root, count):
    (root / "labels.txt").write_text("".join(f"c{n}\n" for n in range(count)))
    table(root, count, "a{0}.jpg,1,2,3,4,u{0}")
    assert "none of the objects" in load(f"csv:{root}")


def many_classes(root, count):
    table(root, count // 4, "a{0}.jpg,1,2,3,4,u{0}")
    datasets.convert(f"csv:{root}", f"csv:{root / 'out'}", photos="none")


def a_list_of_classes(root, count):
    (root / "labels.txt").write_text("".join(f"c{n}\n" for n in range(10 * count)))
    table(root, 1, "a.jpg,1,2,3,4,c0")
    assert len(load(f"csv:{root}", classes=[f"c{n}" for n in range(count)])) == 1


def settings(root, count):
    names = "".join(f"  {n}: c{n}\n" for n in range(count // 4))
    photo(root / "images/a.png", png(8, 8))
    (root / "data.yaml").write_text(f"train: images\nnames:\n{names}")
    assert len(load(f"yolo:{root}#train")) == 1


def keys_of_settings(root, count):
    keys = "".join(f"k{n}: x\n" for n in range(count // 4))
    (root / "data.yaml").write_text(f"train: images\n{keys}k9: x\n")
    assert "'k9' is there twice" in load(f"yolo:{root}#train")


def problems_twice(root, count):
    for name in "ab":
        found = Problems(logged=False)
        for n in range(2 * count):
            found.add("kind", f"{name}{n}", "message " * 9)
        found.add_to(root / "problems.txt")
    assert len((root / "problems.txt").read_text().splitlines()) == 4 * count


def coco(root, images, categories, objects):
    content = {"images": images, "categories": categories, "annotations": objects}
    (root / "x.json").write_text(json.dumps(content))
    return load(f"coco:{root}")


def categories(root, count):
    each = [{"id": n, "name": f"c{n}", "supercategory": "s"} for n in range(count)]
    box = {"image_id": 1, "category_id": "?", "bbox": [1, 2, 3, 4]}
    assert "none of the obj" in coco(root, [{"id": 1, "file_name": "a.jpg"}], each, [box] * count)


def images_of_one_file(root, count):
    photo(root / "a.jpg")
    images = [{"id": n, "file_name": f"/elsewhere/{n}/a.jpg"} for n in range(count // 4)]
    assert "nothing usable" in coco(root, images, [{"id": 1, "name": "c"}], [])


def counts_beyond_the_list(root, count):
    entries = "".join(f"e/{n}.jpg\n999999999\n1 2 30 40\n" for n in range(count))
    (root / "wider_face_val_bbx_gt.txt").write_text(entries)
    assert "nothing usable" in load(f"wider_face:{root}")


def objects_in_objects(root, count):
    text = "<object>" * count + "<bndbox/>" + "</object>" * count
    (root / "a.xml").write_text(f"<annotation>{text}</annotation>")
    assert "none of the objects" in load(f"voc:{root}")


def broken_lines_and_names_with_commas(root, count):
    table(root, count // 4, '"a, {0}.jpg",1,2,3,4,c\nb,1,')
    assert len(load(f"csv:{root}")) == count // 4


def blanks_in_a_list(root, count):
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/x.txt").write_text(f"a{' ' * 50 * count}b\n")
    (root / "a.xml").write_text("<annotation/>")
    assert "nothing usable" in load(f"voc:{root}#x")


def digits(root, count):
    table(root, 1, f"a.jpg,{'9' * 5 * count}x,2,3,4,c")
    box = {"image_id": 1, "category_id": 1, "bbox": ["9" * 50 * count + "x", 2, 3, 4]}
    assert "none of the objects" in load(f"csv:{root}")
    text = coco(root, [{"id": 1, "file_name": "a.jpg"}], [{"id": 1, "name": "c"}], [box])
    assert "none of the objects" in text


def detections_of_images_of_one_name(root, count):
    judged = [Annotation(f"{n}/a.jpg", b"", [[1, 2, 3, 4]], size=(9, 9)) for n in range(count // 2)]
    row = {"category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    rows = [{"file_name": f"{n}/a", **row} for n in range(count // 2)]
    (root / "x.json").write_text(json.dumps(rows))
    assert results.read(root / "x.json", judged).num_detections == count // 2


CASES = [
    unknown_classes,
    many_classes,
    a_list_of_classes,
    settings,
    keys_of_settings,
    problems_twice,
    categories,
    images_of_one_file,
    counts_beyond_the_list,
    objects_in_objects,
    broken_lines_and_names_with_commas,
    blanks_in_a_list,
    digits,
    detections_of_images_of_one_name,
]


@pytest.mark.parametrize("case", CASES)
def test_the_double_size_takes_about_twice_the_time(case, tmp_path):
    ratios = []
    for attempt in range(3):  # another program may slow one of them down
        seconds = []
        for count in (4000, 8000):
            root = tmp_path / f"{attempt}-{count}"
            root.mkdir()
            begin = time.process_time()
            case(root, count)
            seconds.append(time.process_time() - begin)
        ratios.append(seconds[1] / max(seconds[0], 0.02))
        if ratios[-1] < MOST:
            return
    raise AssertionError(f"expected less than {MOST} times the time. Received: {ratios}")
