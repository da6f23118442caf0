"""The memory that reading takes, as a multiple of the length of the file: docs/data.md promises it."""

import json
import subprocess
import sys

import pytest

from tests.helpers.data_sets import photo

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux"),
]

COUNT = 1_000_000
MEASURE = """
import resource, sys
from pathlib import Path
from unitbox_tf import registry
from unitbox_tf.problems import Problems
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
form, path, split = sys.argv[1:]
opened = registry.DATASETS[form].open
before, count = peak(), -1
try:
    data = opened(Path(path), split)
    count = sum(len(a.boxes) for a in data.annotations(photos=False, problems=Problems(False)))
except ValueError as error:
    print(error, file=sys.stderr)
print(count, peak() - before)
"""


def measured(form, path, split=""):
    command = [sys.executable, "-c", MEASURE, form, str(path), split]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    count, peak = map(int, result.stdout.split())
    return count, peak, result.stderr


def test_a_json_with_a_million_boxes_in_one_image_takes_five_times_its_length(tmp_path):
    box = {"image_id": 1, "category_id": 1, "bbox": [1.25, 2.5, 30.125, 40.5], "iscrowd": 0}
    facts = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "x"}]}
    rows = ", ".join([json.dumps(box | {"area": 1220.0625})] * COUNT)
    path = tmp_path / "x.json"
    photo(path, f'{json.dumps(facts)[:-1]}, "annotations": [{rows}]}}'.encode())
    count, peak, _ = measured("coco", path)
    assert count == COUNT
    assert peak < 5 * path.stat().st_size


def test_a_table_with_a_million_boxes_in_one_image_takes_a_kilobyte_a_row(tmp_path):
    path = tmp_path / "x.csv"
    rows = "".join(f"a.jpg,{n % 500},1.25,{n % 500 + 30}.25,40.5,cat\n" for n in range(COUNT))
    photo(path, f"image,x0,y0,x1,y1,class\n{rows}".encode())
    count, peak, _ = measured("csv", path)
    assert count == COUNT
    assert peak < 1100 * COUNT


def test_a_list_with_a_million_faces_in_one_image_takes_600_bytes_a_face(tmp_path):
    rows = "".join(f"{n % 500} {n % 400} 30 40 0 0 0 0 0 0\n" for n in range(COUNT))
    path = tmp_path / "wider_face_split/wider_face_val_bbx_gt.txt"
    photo(path, f"e/a.jpg\n{COUNT}\n{rows}".encode())
    count, peak, _ = measured("wider_face", tmp_path, "val")
    assert count == COUNT
    assert peak < 600 * COUNT


@pytest.mark.parametrize("value", ["[]", '{"a":1}'])
def test_values_beyond_the_limit_are_refused_before_they_are_parsed(tmp_path, value):
    path = tmp_path / "x.json"
    photo(path, f"[{','.join([value] * 20_000_000)}]".encode())
    count, peak, error = measured("coco", path)
    assert count == -1
    assert "expected at most 20,000,000 objects and lists. Received: 20,000,001" in error
    assert peak < 1.5 * path.stat().st_size
