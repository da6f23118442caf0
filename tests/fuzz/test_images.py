"""A short run of the fuzzer, and what it says of faults."""

import pytest

from tests.fuzz import images, mutation


@pytest.mark.slow
def test_damaged_images_are_refused_or_searched():
    report = images.run(300, seed=0)
    assert report.findings == []
    for way in ("TensorFlow", "Pillow", "PIL image", "graph"):
        assert report.outcomes[f"{way}: detections"] > 0
        assert report.outcomes[f"{way}: ValueError"] > 0


def test_inputs_are_repeated_by_their_seed():
    corpus = list(mutation.seeds().values())
    inputs = [mutation.mutated(corpus, 1, number) for number in range(50)]
    assert inputs == [mutation.mutated(corpus, 1, number) for number in range(50)]
    assert len(set(inputs)) > 45
    assert inputs != [mutation.mutated(corpus, 2, number) for number in range(50)]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os; os.abort()", "crash -6"),
        ("raise MemoryError('enough')", "crash 1 ['MemoryError: enough']"),
        ("import time; time.sleep(60)", "hang"),
    ],
)
def test_a_process_that_ends_or_waits_is_a_finding_and_the_next_input_follows(
    code, expected, monkeypatch
):
    monkeypatch.setattr(images, "SECONDS", 0.1)
    monkeypatch.setattr(images, "STARTING", 100 if expected != "hang" else 10)
    monkeypatch.setattr(images, "command", lambda *_: [images.sys.executable, "-c", code])
    report = images.run(2, seed=0)
    assert [number for number, _ in report.findings] == [0, 1]
    assert all(reason.startswith(expected) for _, reason in report.findings)
