import dataclasses
import json
import re

import numpy as np
import pytest

from unitbox_tf import config as configs
from unitbox_tf.config import Config
from unitbox_tf.datasets.shown import MAX_SHARE
from unitbox_tf.presets import PRESETS


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


def test_the_light_preset_learns_the_sizes_that_its_map_has_points_for():
    light = PRESETS["faces_light"]
    assert (light.model.backbone, light.model.neck) == ("light", "top_down")
    assert light.model.map_stride < light.data.min_object <= light.data.object_size[0]
    assert light.data.object_size[1] <= MAX_SHARE * light.data.image_size
    assert light.train.optimizer == "adamw"
    assert light.train.ema_momentum is not None
    averaged = 1 / (1 - light.train.ema_momentum)
    assert averaged < 0.1 * light.train.epochs * light.train.steps_per_epoch


def test_field_names_are_unique_so_that_each_can_be_an_option():
    groups = [field.type for field in dataclasses.fields(Config)]
    names = [f.name for g in groups for f in dataclasses.fields(getattr(configs, g))]
    assert len(names) == len(set(names))


UNUSABLE = [
    ("train", "epochs", "3", "TrainConfig.epochs: expected a whole number of at least 1. Received: '3'"),
    ("train", "epochs", 0, "TrainConfig.epochs: expected a whole number of at least 1. Received: 0"),
    ("train", "epochs", True, "TrainConfig.epochs: expected a whole number of at least 1. Received: True"),
    ("train", "epochs", 2.0, "epochs: expected a whole number"),
    ("train", "device", "tpu", "device: expected one of ['auto', 'cpu', 'gpu']. Received: 'tpu'"),
    ("train", "seed", 2**31, "seed: expected a whole number from 0 to 2147483647. Received: 2147483648"),
    ("train", "run", "../x", "run: expected None or text that names a folder, without slashes. Received: '../x'"),
    ("train", "run", "..", "run: expected None or text that names a folder, without slashes. Received: '..'"),
    ("train", "optimizer", "lion", "optimizer: expected one of ['sgd', 'adam', 'adamw']. Received: 'lion'"),
    ("train", "schedule", "linear", "schedule: expected one of ['constant', 'cosine']"),
    ("train", "clip_norm", "x", "clip_norm: expected None or a number above 0. Received: 'x'"),
    ("train", "clip_norm", 0, "clip_norm: expected None or a number above 0. Received: 0"),
    ("train", "learning_rate", float("nan"), "learning_rate: expected a number above 0. Received: nan"),
    ("train", "warmup", 0.1, "expected schedule 'cosine' where there is a warmup. Received: 'constant'"),
    ("train", "weight_decay", 0.1, "expected optimizer 'sgd' or 'adamw' where there is a weight_decay"),
    ("train", "ema_momentum", 1.0, "ema_momentum: expected None or a number"),
    ("data", "mosaic_rows", [], "mosaic_rows: expected a list of whole numbers with at least one item"),
    ("data", "mosaic_rows", [1], "mosaic_rows: expected a list of whole numbers"),
    ("data", "mosaic_rows", [5], "with at least one item, each from 2 to 4, all different"),
    ("data", "mosaic_rows", [3], "expected mosaic_rows of (2,) where there is no mosaic"),
    ("data", "mosaic_rows", [3, 3], "all different. Received: [3, 3]"),
    ("loss", "confidence_loss", "l2", "confidence_loss: expected one of ['cross_entropy', 'focal']"),
    ("loss", "confidence_target", "box", "confidence_target: expected one of ['region', 'iou']"),
    ("loss", "confidence_shares", "box", "confidence_shares: expected one of ['pixel', 'root', 'object']"),
    ("data", "object_size", [1.0], "object_size: expected 2 numbers. Received: [1.0]"),
    ("data", "object_size", [9.0, 1.0], "expected object_size as two growing numbers above 0"),
    ("data", "region", "circle", "region: expected one of ['ellipse', 'box']. Received: 'circle'"),
    ("data", "train_sources", [], "train_sources: expected a list of texts with at least one item"),
    ("data", "train_sources", "coco:a", "train_sources: expected a list of texts"),
    ("data", "mosaic", 1.5, "mosaic: expected a number from 0 to 1. Received: 1.5"),
    ("model", "class_names", "face", "class_names: expected a list of texts where each is one line"),
    ("model", "class_names", ["cat", "cat"], "all different, 10000 at most. Received: ['cat', 'cat']"),
    ("model", "class_names", [""], "class_names: expected a list of texts where each is one line"),
    ("model", "class_names", ["a cat\n"], "(at most 200 characters), all different, 10000 at most. Received: ['a cat"),
    ("data", "classes", ["cat", "cat"], "not blank, all different. Received: ['cat', 'cat']"),
    ("data", "rename", ["cat"], "where each is as old=new, such as human_face=face. Received: ['cat']"),
    ("data", "rename", ["a=b=c"], "where each is as old=new"),
    ("data", "rename", ["=b"], "where each is as old=new"),
    ("model", "backbone", "vgg17", "backbone: expected one of ['vgg16'"),
    ("loss", "distance_loss", "l1", "distance_loss: expected one of ['iou', 'linear_iou'"),
    ("loss", "alpha", 0.5, "alpha: expected a number of at least 1. Received: 0.5"),
    ("decode", "max_detections", 0, "max_detections: expected a whole number from 1 to 10000"),
    ("decode", "max_side", -5, "max_side: expected a whole number from 1 to 8192. Received: -5"),
    ("decode", "decoder", "foo", "decoder: expected one of ['peaks', 'ellipse'"),
    ("decode", "scales", [], "scales: expected a list of numbers with one item to 16, each above 0"),
    ("decode", "scales", [1, 0], "scales: expected a list of numbers with one item to 16, each above 0"),
    ("decode", "scales", [1, 1.0], "each above 0, all different. Received: [1, 1.0]"),
    ("decode", "score_threshold", float("inf"), "score_threshold: expected a number from 0 to 1"),
    ("decode", "max_detections", 10**8, "max_detections: expected a whole number from 1 to 10000"),
    ("decode", "max_side", 8193, "max_side: expected a whole number from 1 to 8192"),
    ("decode", "scales", [1, 100.0], "max_side times the largest of scales up to 8192"),
    ("decode", "scales", [i / 99 for i in range(1, 18)], "scales: expected a list of numbers with one item to 16"),
    ("decode", "max_pixels", 0, "max_pixels: expected a whole number from 1 to 2147483647. Received: 0"),
]  # fmt: skip


@pytest.mark.parametrize(("group", "field", "value", "message"), UNUSABLE)
def test_unusable_settings_are_named_whoever_makes_them(group, field, value, message):
    """In a json file, and in Python: by the class, and by `dataclasses.replace`."""
    settings = getattr(PRESETS["paper"], group)
    if field in ("warmup", "weight_decay"):
        changes = {"optimizer": "adam"} if field == "weight_decay" else {}
        settings = dataclasses.replace(settings, **{"weight_decay": 0.0, **changes})
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(settings, **{field: value})
    content = json.loads(PRESETS["paper"].to_json())
    content[group] = {**dataclasses.asdict(settings), field: value}
    with pytest.raises(ValueError, match=r"here\.json: " + group + ".*" + re.escape(message)):
        Config.from_json(json.dumps(content), "here.json")


def test_unknown_fields_are_named():
    with pytest.raises(ValueError, match="train: unknown field 'epoch'"):
        Config.from_json('{"train": {"epoch": 3}}')
    with pytest.raises(ValueError, match=r"Config\.train: expected a TrainConfig. Received"):
        Config(train={"epochs": 3})


def test_what_is_plainly_meant_is_converted_and_survives_json(tmp_path):
    data = configs.DataConfig(data=tmp_path, object_size=[np.int64(9), 20], colour=np.float32(0.5))
    config = Config(data=data, train=configs.TrainConfig(init=tmp_path / "run", epochs=np.int32(3)))
    assert (data.data, data.object_size, data.colour) == (str(tmp_path), (9.0, 20.0), 0.5)
    assert all(type(value) is float for value in (*data.object_size, data.colour))
    arrays = configs.DataConfig(object_size=np.float32([9, 20]), train_sources=np.array(["coco:a"]))
    assert (arrays.object_size, arrays.train_sources) == ((9.0, 20.0), ("coco:a",))
    assert type(arrays.train_sources[0]) is str
    with pytest.raises(ValueError, match="object_size: expected 2 numbers"):
        configs.DataConfig(object_size=np.ones((2, 2)))
    assert type(config.train.init) is str
    assert type(config.train.epochs) is int
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize("group", [f.type for f in dataclasses.fields(Config)])
def test_every_field_says_what_it_does(group):
    for field in dataclasses.fields(getattr(configs, group)):
        assert len(field.metadata["help"]) > 20, field.name


def test_a_broken_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{\n "data": }')
    with pytest.raises(ValueError, match=r"config\.json:2: not valid JSON"):
        configs.load(path)
    with pytest.raises(ValueError, match=r"the card:1: not valid JSON"):
        Config.from_json("{", "the card")
    path.write_bytes(b"\xff\xd8")
    with pytest.raises(ValueError, match=r"config\.json: expected JSON in UTF-8"):
        configs.load(path)


@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 400, str(1 << 63)])
@pytest.mark.parametrize("field", ["learning_rate", "batch_size"])
def test_whole_numbers_that_no_array_holds_are_refused(number, field):
    with pytest.raises(ValueError, match=rf"x\.json: train: .*{field}"):
        configs.Config.from_json(f'{{"train": {{"{field}": {number}}}}}', "x.json")


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000])
def test_json_of_endless_depth_or_digits_is_none(text):
    with pytest.raises(ValueError, match=r"x\.json: not usable JSON"):
        configs.Config.from_json(text, "x.json")


def test_configurations_beyond_four_megabytes_are_not_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(configs.Config().to_json() + " " * (4 << 20))
    with pytest.raises(
        ValueError, match=r"config\.json: expected a file of at most 4,194,304 bytes"
    ):
        configs.load(path)
