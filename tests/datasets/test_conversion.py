import json
from pathlib import Path

import pytest

from tests.helpers.data_sets import photo, png
from unitbox_tf import datasets
from unitbox_tf.problems import Problems


def table(folder, *rows):
    photo(folder / "a.png", png(20, 30))
    text = "\n".join(["image,x0,y0,x1,y1,class,ignore", *rows, ""])
    (folder / "boxes.csv").write_text(text)


def test_convert_says_how_much_was_read_and_written_and_what_was_lost(tmp_path):
    table(tmp_path, "a.png,1,2,3,4,dog,0", "a.png,5,5,9,9,dog,1", "gone.png,1,2,3,4,dog,0")
    problems = Problems()
    done = datasets.convert("csv:", f"yolo:{tmp_path / 'out'}", data=tmp_path, problems=problems)
    assert done.read == (1, 2, 1)
    assert done.written == (1, 1, 0)
    assert done.problems is problems
    assert dict(problems.counts) == {"image listed but absent": 1, "ignored objects left out": 1}
    assert len(done.problems_file.read_text().splitlines()) == 2
    plain = json.loads(json.dumps(done.to_dict()))
    assert plain["read"] == {"images": 1, "boxes": 2, "ignored": 1}
    assert plain["output"] == str(tmp_path / "out")
    assert plain["problems"] == dict(problems.counts)
    assert "read  1 images, 2 boxes, 1 of them ignored" in done.table()


def test_convert_takes_a_source_that_is_open(tmp_path):
    source = datasets.open("synthetic:#0-2")
    for form in ("coco", "csv"):
        done = datasets.convert(source, f"{form}:{tmp_path / form}")
        assert done.read == done.written
        assert done.problems_file is None
        assert done.to_dict()["problems_file"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"photos": "move"},
            "Expected images as one of .*'copy', 'link', 'none'.*Received: 'move'",
        ),
        ({"destination": "synthetic:x"}, "Expected a destination as FORMAT:PATH#SPLIT"),
        ({"destination": "coco:"}, "Expected a destination as FORMAT:PATH#SPLIT with a path"),
        ({"destination": Path("x")}, "Expected a destination as .*Received: PosixPath"),
        ({"destination": None}, "Expected a destination as .*Received: None"),
        ({"source": 3}, "Expected a source as FORMAT:PATH#SPLIT .*Received: 3"),
        ({"source": ["a"]}, r"Expected a source as FORMAT:PATH#SPLIT .*Received: \['a'\]"),
        ({"data": None}, "data: expected the path of a folder. Received: None"),
        ({"source": "negatives:"}, "nothing usable was found in 'negatives:'"),
    ],
)
def test_convert_names_what_is_wrong(tmp_path, arguments, message):
    whole = {"source": "synthetic:#0-2", "destination": f"coco:{tmp_path / 'out'}"}
    with pytest.raises(ValueError, match=message):
        datasets.convert(**{**whole, "data": tmp_path, **arguments})
    assert not list(tmp_path.iterdir())
