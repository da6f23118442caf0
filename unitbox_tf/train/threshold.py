"""The score threshold that a run is stored with: the one with the best F1 in its validation images."""

from __future__ import annotations

import dataclasses
import logging

from unitbox_tf import files, runs
from unitbox_tf.config import Config, DecodeConfig
from unitbox_tf.evaluation import by_class, matching

logger = logging.getLogger(__name__)

HIGHEST = (
    1 - 2**-20
)  # detectors compute in single precision, where higher scores are hard to tell from 1


def settled(config: Config) -> Config:
    """`config` with `choose_threshold` "on" or "off": "auto" is off if `score_threshold` is not the default.

    If it is on, training begins with the default threshold. So a run that is resumed, whose threshold was
    chosen already, logs recall and precision at the same threshold as before.
    """
    default: float = DecodeConfig.score_threshold
    choose = config.train.choose_threshold
    if choose == "auto":
        choose = "on" if config.decode.score_threshold == default else "off"
    train = dataclasses.replace(config.train, choose_threshold=choose)
    decode = config.decode
    if choose == "on":
        decode = dataclasses.replace(decode, score_threshold=default)
    return dataclasses.replace(config, train=train, decode=decode)


def chosen(config: Config, best: matching.Best | None) -> DecodeConfig:
    """The settings of decoding that a run ends with. The threshold stays as it is if no object was found.

    Args:
        config: the settings of the run; see `settled`.
        best: the best score threshold of its decoder.
    """
    if config.train.choose_threshold != "on":
        return config.decode
    if best is None:
        logger.info(
            "score_threshold stays %g: no object of the validation images is found",
            config.decode.score_threshold,
        )
        return config.decode
    logger.info("score_threshold is now that of the best F1: %s", by_class.described(best))
    threshold = min(best.threshold, HIGHEST)
    return dataclasses.replace(config.decode, score_threshold=threshold)


def store(run: runs.Run, decode: DecodeConfig) -> None:
    """Writes the settings of decoding into the stored configuration of the run."""
    config = dataclasses.replace(run.config(), decode=decode)
    files.write(run.config_file, config.to_json())
