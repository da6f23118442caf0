import dataclasses
import json

import pytest

from unitbox_tf import config as configs
from unitbox_tf.config import PRESETS, Config


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    assert Config.from_json(PRESETS[name].to_json()) == PRESETS[name]


def test_the_paper_preset_is_section_4_of_the_paper():
    train, loss, model = PRESETS["paper"].train, PRESETS["paper"].loss, PRESETS["paper"].model
    assert (train.optimizer, train.batch_size, train.momentum) == ("sgd", 10, 0.9)
    assert (train.learning_rate, train.weight_decay, train.clip_norm) == (1e-8, 2e-4, None)
    assert train.schedule == "constant"
    assert (loss.distance_loss, loss.reduction) == ("iou", "sum")
    data = PRESETS["paper"].data
    changes = (data.random_crop, data.flip, data.colour, data.mosaic)
    assert changes == (False, False, 0.0, 0.0)
    assert (model.weights, model.initial_box_size, model.stage4_scale) == ("imagenet", 0.0, 1.0)


def test_the_paper_presets_differ_as_the_paper_says():
    paper, l2 = PRESETS["paper"], PRESETS["paper_l2"]
    assert dataclasses.replace(l2.loss, distance_loss="iou") == paper.loss
    assert l2.train.learning_rate == 1e-13
    epochs, rate = paper.train.epochs, paper.train.learning_rate
    assert dataclasses.replace(l2.train, epochs=epochs, learning_rate=rate) == paper.train
    assert (l2.data, l2.model, l2.decode) == (paper.data, paper.model, paper.decode)


def test_field_names_are_unique_so_that_each_can_be_an_option():
    groups = [field.type for field in dataclasses.fields(Config)]
    names = [f.name for g in groups for f in dataclasses.fields(getattr(configs, g))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("group", "field", "value", "message"),
    [
        ("train", "epoch", 3, "unknown field 'epoch'"),
        ("train", "epochs", "3", "epochs: expected .*int.*received '3'"),
        ("train", "epochs", 0, "epochs of at least 1. Received: 0"),
        ("train", "device", "tpu", "device: expected .*received 'tpu'"),
        ("train", "clip_norm", "x", "clip_norm: expected .*received 'x'"),
        ("data", "object_size", [1.0], "object_size: expected .*received \\[1.0\\]"),
        ("data", "object_size", [9.0, 1.0], "two growing numbers"),
        ("model", "class_names", [], "at least one of class_names"),
        ("data", "train_sources", [], "at least one of train_sources"),
        ("data", "mosaic", 1.5, "mosaic from 0 to 1. Received: 1.5"),
        ("loss", "distance_loss", "l1", "distance_loss: expected .*received 'l1'"),
        ("loss", "alpha", 0.5, "alpha of at least 1. Received: 0.5"),
        ("loss", "alpha", 3.0, "from linear_iou to siou where alpha is not 1. Received: iou"),
        ("train", "schedule", "constant", "'cosine' where there is a warmup"),
        ("train", "weight_decay", 0.1, "'sgd' where there is a weight_decay"),
        ("decode", "max_detections", 0, "max_detections of at least 1"),
    ],
)
def test_unusable_settings_are_named(group, field, value, message):
    content = json.loads(PRESETS["smoke"].to_json())
    content[group][field] = value
    with pytest.raises(ValueError, match=message):
        Config.from_json(json.dumps(content))


def test_a_broken_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{\n "data": }')
    with pytest.raises(ValueError, match=r"config\.json:2: not valid JSON"):
        configs.load(path)
