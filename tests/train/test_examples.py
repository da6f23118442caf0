import dataclasses

import numpy as np
import pytest

from unitbox_tf import datasets
from unitbox_tf.datasets import synthetic
from unitbox_tf.problems import Problems
from unitbox_tf.train import examples


def names(annotations):
    return [annotation.name for annotation in annotations]


def test_sources_may_be_written_or_opened(tiny_config):
    opened = datasets.open("synthetic:#0-3", ".")
    found = examples.training([opened, "synthetic:#7-9"], tiny_config, problems=Problems())
    assert names(found.examples) == [f"synthetic/{number}" for number in (0, 1, 2, 7, 8)]
    assert len(found.origin) == 2
    assert found.origin[1] == "synthetic:#7-9"
    judged = examples.validation([opened], tiny_config, problems=Problems())
    assert [source.format for source in judged.sources] == ["synthetic"]


def test_an_opened_source_of_another_folder_is_stored_so_that_it_can_be_read_again(
    tiny_config, tmp_path
):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "0.png").write_bytes(synthetic.draw(0).image)
    opened = datasets.open("negatives:photos", tmp_path)
    found = examples.training([opened], tiny_config)
    data = dataclasses.replace(tiny_config.data, train_sources=found.origin)
    again = examples.training(None, dataclasses.replace(tiny_config, data=data))
    assert names(again.examples) == names(found.examples)


def test_none_takes_the_sources_of_the_configuration(tiny_config):
    found = examples.training(None, tiny_config, problems=Problems())
    assert found.origin == tiny_config.data.train_sources
    assert len(found.examples) == 12


def test_epochs_are_judged_by_images_spread_evenly_of_which_the_broken_are_left_out(tiny_config):
    given = [synthetic.draw(number) for number in range(9)]
    given[4] = dataclasses.replace(given[4], image=b"no image")
    train = dataclasses.replace(tiny_config.train, validation_images=3)
    problems = Problems()
    config = dataclasses.replace(tiny_config, train=train)
    judged = examples.validation(given, config, problems=problems)
    assert names(judged.annotations) == names(given)
    assert names(judged.watched) == ["synthetic/0", "synthetic/8"]
    assert [problem.where for problem in problems.found] == ["synthetic/4"]
    assert judged.sources == []


def test_a_protocol_that_needs_its_data_set_is_refused_for_annotations_in_memory(tiny_config):
    train = dataclasses.replace(tiny_config.train, validation_protocol="wider_face")
    config = dataclasses.replace(tiny_config, train=train)
    with pytest.raises(ValueError, match=r"no source is of the format wider_face"):
        examples.validation([synthetic.draw(0)], config, problems=Problems())


def test_a_generator_is_read_once_and_arrays_of_annotations_are_taken(tiny_config):
    made = (synthetic.draw(number) for number in range(2))
    assert len(examples.training(made, tiny_config, problems=Problems()).examples) == 2
    array = np.array([synthetic.draw(0), synthetic.draw(1)], object)
    assert len(examples.training(array, tiny_config, problems=Problems()).examples) == 2
