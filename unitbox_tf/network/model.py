"""SHIM until all branches are merged."""

from unitbox_tf.network.layers import Crop, Preprocess, Resize, SideReLU  # noqa: F401

STRIDE = 32


def unitbox(config, seed=0):  # type: ignore[no-untyped-def]
    """SHIM."""
    from unitbox_tf.detect.model import UnitBox

    return UnitBox.from_settings(config, seed=seed)
