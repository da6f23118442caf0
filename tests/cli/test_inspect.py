import argparse
import json

import pytest

from unitbox_tf import cli
from unitbox_tf.cli import inspect, parser
from unitbox_tf.presets import PRESETS


def options(*arguments):
    return parser.parse(["inspect", *arguments])


def test_inspect_prints_what_is_in_each_source_and_in_all(capsys):
    assert inspect.run(options("synthetic:#0-3", "synthetic:#3-4")) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["synthetic:#0-3", "synthetic:#3-4", "total"]
    assert printed[1].split() == ["images", "3", "1", "4"]


def test_settings_are_those_of_the_preset_or_file_with_the_options(tmp_path):
    assert inspect.configuration(options("synthetic:#0-3")) == PRESETS["faces"]
    given = options(
        "synthetic:#0-3", "--preset", "paper", "--max-side", "99", "--scales", ".5", "1"
    )
    config = inspect.configuration(given)
    assert config.decode.max_side == 99
    assert config.decode.scales == (0.5, 1.0)
    assert config.model == PRESETS["paper"].model
    (tmp_path / "config.json").write_text(PRESETS["smoke"].to_json())
    given = options("synthetic:#0-3", "--config", str(tmp_path / "config.json"), "--flip")
    config = inspect.configuration(given)
    assert config.data.flip
    assert config.decode == PRESETS["smoke"].decode


def test_settings_that_do_not_go_together_are_wrong_usage(capsys):
    command = ["inspect", "synthetic:#0-3", "--no-random-crop", "--stretch", "2"]
    assert cli.main(command) == 2
    assert "stretch of 1 where there is no random_crop" in capsys.readouterr().err
    with pytest.raises(argparse.ArgumentTypeError):
        inspect.configuration(options(*command[1:]))


@pytest.mark.parametrize("name", ["--train-sources", "--validation-sources", "--nms-iou"])
def test_settings_that_change_nothing_are_no_options(name, capsys):
    assert cli.main(["inspect", "synthetic:#0-3", name, "1"]) == 2
    assert f"unknown option {name}" in capsys.readouterr().err


def test_json_holds_all_facts_alone(capsys):
    command = ["inspect", "synthetic:#0-3", "--validation", "synthetic:#2-4", "--json", "--quick"]
    assert cli.main(command) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["total"]["images"] == 3
    assert facts["validation"]["images"] == 2
    assert facts["limits"] == {"stride": 8, "field": 228}
    assert [each["image"] for each in facts["duplicates"]["shared"]] == ["synthetic/2"]
    assert not facts["duplicates"]["compared"]
    assert facts["obstacles"]
    assert facts["options"].startswith("--max-side ")
    assert {each["field"] for each in facts["suggestions"]} >= {"object_size", "scales"}
