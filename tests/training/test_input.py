import pytest

from tests.helpers.images import encoded_as
from training.benchmarks import input as measured


@pytest.fixture(autouse=True)
def one_round_to_warm(monkeypatch):
    monkeypatch.setattr(measured, "WARMING", 1)


def benchmark(photos=None, **more):
    options = {"count": 4, "sizes": ["40x48"], "boxes": [3], "stored": ["files", "shards"]}
    options |= {"stride": 4, "batch": 2, "stages": False, "rounds": 1}
    return measured.benchmark(photos, **options | more)


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_stages_are_switched_on_one_after_the_other():
    """The last one is the whole pipeline; random changes have stages of their own."""
    [found] = benchmark(stored=["files"], stages=True)["results"]
    plain, changed = (
        [name.partition(": ")[2] for name in found["rows"] if f" {kind}, " in name]
        for kind in ("plain", "augmented")
    )
    assert plain == ["reading and decoding", "cutting and resizing", "batches", "targets"]
    assert changed == [*plain[:2], "flip", "colour", "blur", "mosaics", *plain[2:]]


@pytest.mark.parametrize("stored", ["files", "dataset"])
def test_stages_show_images_and_objects_are_the_last_one(tmp_path, stored):
    paths = measured._photos(tmp_path, None, 4, 40, 48)
    whole = measured.Pipeline(tmp_path, paths, measured.Case(3, False, stored), 48, 4, 2)
    shapes = [next(iter(stage))[0] for stage in whole.stages().values()]
    assert [shapes[0].shape, shapes[1][0].shape] == [(40, 48, 3), (48, 48, 3)]
    for batches, has_objects in ((whole.batches(), True), (whole.batches(False), False)):
        images, targets, _ = next(batches.as_numpy_iterator())
        assert images.shape == (2, 48, 48, 3)
        assert targets["confidence"].any() == has_objects


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
