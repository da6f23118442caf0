"""Settings of the network that the tests of formats export."""

from unitbox_tf.config import Config, DecodeConfig, ModelConfig

# Enough detections that none is cut off: which of two equal scores is the last would be left to rounding.
CONFIG = Config(
    # Logits of a size that is usual: else rounding decides about scores.
    model=ModelConfig(
        class_names=("cat", "dog"), head_stddev=0.01, initial_box_size=25.0, stage4_scale=0.1
    ),
    decode=DecodeConfig(
        max_side=64,
        scales=(0.5, 1.0),
        largest_object=30.0,
        score_threshold=0.01,
        max_detections=100,
    ),
)

CARD = "# A card\n\nfor café\n"
