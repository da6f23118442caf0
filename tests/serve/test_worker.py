"""Photos of all requests are searched as the detector searches each alone, whoever else asks."""

import threading
import time

import numpy as np
import pytest

from tests.serve.conftest import found_in
from unitbox_tf import image_headers, inputs
from unitbox_tf.config import DecodeConfig
from unitbox_tf.limits import TooLarge
from unitbox_tf.serve.metrics import Metrics
from unitbox_tf.serve.worker import Worker

DECODE, STRICT = DecodeConfig(max_pixels=1000), DecodeConfig(max_pixels=1000, score_threshold=0.9)


@pytest.fixture
def start():
    """`start(detector, ...)`: a worker, which ends with the test."""
    workers = []

    def made(detector, **options):
        workers.append(Worker(detector, Metrics(), **options))
        return workers[-1]

    yield made
    for worker in workers:
        worker.close(10)
        assert not worker._thread.is_alive()


def held(worker):
    """Photos that are submitted within wait until this event is set."""
    begun, event = threading.Event(), threading.Event()
    read = worker._read

    def wait(photo):
        begun.set()
        event.wait(20)
        worker._read = read
        return read(photo)

    worker._read = wait
    first = worker.submit(b"1 10", DECODE)
    assert begun.wait(20)
    return first, event


def counted(worker, name):
    return worker._metrics._registry.get_sample_value(name) or 0


def test_each_photo_gets_its_own_detections(start, counting):
    worker = start(counting.exported(), max_batch=4)
    first, event = held(worker)
    levels = [5, 2, 7, 1, 3, 9, 0]
    jobs = [worker.submit(b"%d 10" % level, DECODE) for level in levels]
    event.set()
    assert first.result(20) == found_in(np.full((10, 10, 3), 1))
    for level, job in zip(levels, jobs, strict=True):
        assert len(job.result(20)) == level
    assert [count for count, *_ in counting.seen] == [1, 4, 3]
    assert counted(worker, "unitbox_batch_size_sum") == 8
    assert counted(worker, "unitbox_batch_size_count") == 3


def test_photos_of_other_sizes_and_settings_are_not_searched_together(start, counting):
    worker = start(counting.exported(), max_batch=8)
    _, event = held(worker)
    asked = [(10, DECODE), (20, DECODE), (10, STRICT), (10, DECODE), (20, STRICT), (20, DECODE)]
    jobs = [worker.submit(b"2 %d" % height, decode) for height, decode in asked]
    event.set()
    assert [job.result(20).image_size for job in jobs] == [(height, 10) for height, _ in asked]
    assert sorted(counting.seen[1:]) == [
        (1, (10, 10), 0.9),
        (1, (20, 10), 0.9),
        (2, (10, 10), 0.5),
        (2, (20, 10), 0.5),
    ]


def test_alone_is_the_default(start, counting):
    worker = start(counting.exported())
    _, event = held(worker)
    jobs = [worker.submit(b"2 10", DECODE) for _ in range(3)]
    event.set()
    [job.result(20) for job in jobs]
    assert [count for count, *_ in counting.seen] == [1, 1, 1, 1]


def test_photos_together_have_at_most_max_pixels(start, counting):
    """Ten pixels wide: 1,000 pixels are 100 rows."""
    worker = start(counting.exported(), max_batch=8)
    _, event = held(worker)
    jobs = [worker.submit(b"2 40", DECODE) for _ in range(5)]
    event.set()
    [job.result(20) for job in jobs]
    assert [count for count, *_ in counting.seen[1:]] == [2, 2, 1]


def test_a_broken_photo_fails_alone(start, counting):
    worker = start(counting.exported(), max_batch=8)
    _, event = held(worker)
    contents = [b"2 10", b"broken", b"3 10", b"2 200", np.zeros((200, 10, 3), np.uint8)]
    good, broken, other, large, array = [worker.submit(photo, DECODE) for photo in contents]
    event.set()
    assert (len(good.result(20)), len(other.result(20))) == (2, 3)
    with pytest.raises(ValueError, match="encoded image"):
        broken.result(20)
    for each in (large, array):
        with pytest.raises(TooLarge, match=r"at most 1,000 pixels"):
            each.result(20)
    assert len(worker.submit(b"4 10", DECODE).result(20)) == 4
    assert counted(worker, "unitbox_decode_failures_total") == 3


def test_a_batch_that_fails_is_searched_one_by_one(start, counting):
    def detect(image, decode):
        if image[0, 0, 0] == 3:
            raise RuntimeError("a fault in a runtime")
        return found_in(image)

    def detect_batch(batch, decode):
        raise MemoryError("too many")

    worker = start(counting.exported(detect=detect, detect_batch=detect_batch), max_batch=8)
    _, event = held(worker)
    one, two, three = [worker.submit(b"%d 10" % level, DECODE) for level in (1, 2, 3)]
    event.set()
    assert (len(one.result(20)), len(two.result(20))) == (1, 2)
    with pytest.raises(RuntimeError, match="a fault in a runtime"):
        three.result(20)


def test_a_detector_that_takes_one_image_at_a_time_is_given_one(start, counting):
    worker = start(counting.exported(detect_batch=None), max_batch=8)
    _, event = held(worker)
    jobs = [worker.submit(b"2 10", DECODE) for _ in range(3)]
    event.set()
    assert [len(job.result(20)) for job in jobs] == [2, 2, 2]
    assert [count for count, *_ in counting.seen] == [1, 1, 1, 1]


def test_what_nobody_waits_for_is_not_searched(start, counting):
    worker = start(counting.exported())
    _, event = held(worker)
    gone, stays = worker.submit(b"9 10", DECODE), worker.submit(b"2 10", DECODE)
    assert gone.cancel()
    event.set()
    assert len(stays.result(20)) == 2
    assert len(counting.seen) == 2


def test_it_waits_for_more_photos_and_no_longer(start, counting):
    worker = start(counting.exported(), max_batch=2, max_wait=5)
    one = worker.submit(b"2 10", DECODE)
    time.sleep(0.2)
    begin = time.monotonic()
    two = worker.submit(b"3 10", DECODE)
    assert (len(one.result(20)), len(two.result(20))) == (2, 3)
    assert time.monotonic() - begin < 4
    assert [count for count, *_ in counting.seen] == [2]
    worker._max_wait = 0.1
    assert len(worker.submit(b"4 10", DECODE).result(4)) == 4


def test_it_ends_after_the_photos_that_wait(start, counting):
    worker = start(counting.exported(), max_batch=4)
    _, event = held(worker)
    jobs = [worker.submit(b"%d 10" % level, DECODE) for level in range(6)]
    threading.Timer(0.2, event.set).start()
    worker.close(20)
    assert [len(job.result(0)) for job in jobs] == list(range(6))


def test_a_batch_of_a_real_detector_is_what_its_photos_are_alone(start, detector, photos):
    image = inputs.read_image(photos[0])
    pictures = [image, image[::-1].copy(), image[:, ::-1].copy(), *map(inputs.read_image, photos)]
    image_headers.check_size(image.shape[:2], detector.decode.max_pixels)
    worker = start(detector, max_batch=8, max_wait=0.5)
    jobs = [worker.submit(each, detector.decode) for each in pictures]
    for job, each in zip(jobs, pictures, strict=True):
        found, wanted = job.result(120), detector.detect(each, detector.decode)
        assert len(found) == len(wanted) > 0
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-3)
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.5)
    assert counted(worker, "unitbox_batch_size_bucket") is not None
    assert counted(worker, "unitbox_batch_size_count") < len(pictures)
