import json

import pytest

from tests.helpers.data_sets import photo, png
from unitbox_tf import datasets
from unitbox_tf.problems import Problems


@pytest.fixture
def table(tmp_path):
    photo(tmp_path / "a.png", png(20, 30))
    photo(tmp_path / "b.png", png(40, 50))
    photo(tmp_path / "c.png", b"no image")
    rows = [
        "image,x0,y0,x1,y1,class,ignore",
        "a.png,0,0,10,4,dog,0",
        "a.png,0,0,3,8,cat,0",
        "b.png,0,0,20,20,dog,1",
        "c.png,,,,,,",
        "gone.png,0,0,10,10,dog,0",
    ]
    (tmp_path / "boxes.csv").write_text("\n".join(rows) + "\n")
    return f"csv:{tmp_path}"


def test_inspect_counts_and_measures(table):
    problems = Problems()
    found = datasets.inspect(table, problems=problems)
    (one,) = found.sources
    assert (one.name, one.images, one.without_objects) == (table, 3, 2)
    assert (one.objects, one.ignored) == (2, 1)
    assert one.classes == {"cat": 1, "dog": 1}
    assert one.widths == (30, 35, 40, 45, 50)
    assert one.heights == (20, 25, 30, 35, 40)
    assert one.long_sides == (8, 8.5, 9, 9.5, 10)
    assert dict(problems.counts) == {"image listed but absent": 1, "image of unknown size": 1}
    assert found.problems is problems


def test_inspect_adds_several_sources_up(table):
    found = datasets.inspect(table, datasets.open("synthetic:#0-4"))
    assert [each.images for each in found.sources] == [3, 4]
    total = found.total
    assert (total.images, total.without_objects, total.ignored) == (7, 2, 1)
    assert total.classes == {"cat": 1, "dog": 1, "object": found.sources[1].objects}
    assert total.widths.maximum == 96
    lines = found.table().splitlines()
    assert lines[0].split() == [table, "synthetic:#0-4", "total"]
    assert lines[1].split() == ["images", "3", "4", "7"]
    assert len({len(line) for line in lines[:8]}) == 1
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["total"]["widths"]["maximum"] == 96
    assert plain["sources"][0]["classes"] == {"cat": 1, "dog": 1}


def test_inspect_says_where_there_is_nothing(tmp_path):
    found = datasets.inspect("negatives:", data=tmp_path)
    assert found.total.widths is found.total.long_sides is None
    assert found.total.images == 0
    assert "-" in found.table()
    with pytest.raises(ValueError, match="Expected at least one source"):
        datasets.inspect()


@pytest.mark.parametrize("source", [3, None, ["a"], "a", b"synthetic:"])
def test_inspect_names_what_is_no_source(source):
    with pytest.raises(ValueError, match=r"Expected a source as FORMAT:PATH#SPLIT .*Received: "):
        datasets.inspect(source)
