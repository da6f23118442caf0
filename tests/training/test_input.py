import pytest

from tests.helpers.images import encoded_as
from training.benchmarks import input as measured


def benchmark(photos=None, **more):
    options = {"count": 4, "sizes": ["40x48"], "boxes": [3], "stored": ["files", "shards"]}
    return measured.benchmark(photos, **options | {"stride": 4, "batch": 2, "rounds": 1} | more)


def test_every_pipeline_is_compared_with_decoding_alone(capsys):
    content = benchmark()
    [found] = content["results"]
    assert (found["height"], found["width"]) == (40, 48)
    names = [
        f"3 boxes, {kind}, {stored}"
        for kind in ("plain", "augmented")
        for stored in ("files", "shards")
    ]
    assert list(found["rows"]) == [measured.DECODING, *names]
    assert found["rows"][measured.DECODING]["ratio_quartiles"] == [1, 1, 1]
    assert all(row["images_per_second"] > 0 for row in found["rows"].values())
    assert "| 40 x 48 | 3 boxes, augmented, shards |" in capsys.readouterr().out


def test_photos_are_given_the_size_that_is_measured(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded_as("JPEG"))
    folder = tmp_path / "resized"
    paths = measured._photos(folder, tmp_path, 2, 30, 20)
    assert [measured.images.decode_with_pillow(p.read_bytes()).shape for p in paths] == [
        (30, 20, 3)
    ] * 2


def test_wrong_sizes_and_empty_folders_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"Expected sizes HEIGHTxWIDTH in pixels\. Received: '20'"):
        benchmark(sizes=["20"])
    with pytest.raises(ValueError, match="Expected a folder with JPEG images"):
        benchmark(tmp_path)
