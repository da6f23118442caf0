"""The detector as one graph: images or encoded images in, boxes in pixels of the original out.

The same graph serves `detector.Detector` and the exported files, so that a detector in Python and its
exports agree.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from unitbox_tf import image_graph, registry
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import decoders
from unitbox_tf.limits import MAX_BATCH, MAX_DETECTIONS

Outputs = dict[str, tf.Tensor]

IMAGES = tf.TensorSpec([None, None, None, 3], tf.uint8, "images")
ENCODED = tf.TensorSpec([None], tf.string, "encoded")
SCALE = tf.TensorSpec([], tf.float32, "scale")
# Shapes of options: a scalar; any, which may be a scalar or a vector with a value for each image.
ONE: list[int] | None = []
EACH: list[int] | None = None
_DTYPES = {float: tf.float32, int: tf.int32, str: tf.string}
_SHARES = ("score_threshold", "blob_threshold", "nms_iou")


def options() -> dict[str, tf.DType]:
    """Fields of `DecodeConfig` that are inputs of the graph: the decoder, and the settings of all decoders."""
    used = {name for each in _names() for name in registry.DECODERS[each].options}
    types = typing.get_type_hints(DecodeConfig)
    names = [field.name for field in dataclasses.fields(DecodeConfig)]
    return {name: _DTYPES[types[name]] for name in names if name in used or name == "decoder"}


def _names() -> list[str]:
    """The decoders that the graph has: those that run in TensorFlow."""
    return [each for each in registry.DECODERS if "tensorflow" in registry.DECODERS[each].engines]


def resize(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Images `[B, H, W, 3]` at a new size, float32: bilinear. Each new pixel is the mean of those that it covers."""
    return tf.image.resize(images, size, antialias=True)


def _check_batch(count: tf.Tensor) -> tf.Operation:
    return tf.debugging.Assert(
        count <= MAX_BATCH, [f"expected at most {MAX_BATCH} images at once. Received:", count]
    )


def checked_options(decode: Any) -> Any:
    """`decode` with the same bounds of its tensors, of any shape, as in `DecodeConfig`.

    Nothing of the size that an option asks for is allocated before: the tensors depend on the checks.
    """
    names = _names()
    shares = {name: getattr(decode, name) for name in _SHARES}
    known = tf.equal(tf.reshape(decode.decoder, [-1, 1]), names)
    checks = [
        tf.debugging.Assert(
            tf.reduce_all(tf.reduce_any(known, axis=-1)),
            [f"expected a decoder of {names}, received", decode.decoder],
        ),
        tf.debugging.Assert(
            tf.reduce_all((decode.max_detections >= 1) & (decode.max_detections <= MAX_DETECTIONS)),
            [
                f"expected max_detections from 1 to {MAX_DETECTIONS}, received",
                decode.max_detections,
            ],
        ),
        *(
            tf.debugging.Assert(  # False for NaN, too
                tf.reduce_all((value >= 0) & (value <= 1)),
                [f"expected {name} from 0 to 1, received", value],
            )
            for name, value in shares.items()
        ),
    ]
    with tf.control_dependencies(checks):
        checked = {name: tf.identity(getattr(decode, name)) for name in options()}
    return decoders.with_tensors(decode, **checked)


def _of_each(name: str, value: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The vector `[B]` with the value of an option for each of `count` images."""
    given = tf.size(value)
    fits = tf.debugging.Assert(
        (tf.rank(value) <= 1) & ((given == 1) | (given == count)),
        [f"expected one {name}, or one for each of the images. Images and values:", count, given],
    )
    with tf.control_dependencies([fits]):
        return tf.broadcast_to(tf.reshape(value, [-1]), [count])


def _padded(found: Outputs, most: tf.Tensor) -> Outputs:
    """The detections in one image, with zeros up to `most` of them."""

    def pad(values: tf.Tensor) -> tf.Tensor:
        added = [[0, most - tf.shape(values)[0]], *[[0, 0]] * (values.shape.rank - 1)]
        return tf.pad(values, added)

    return {name: pad(value) if value.shape.rank else value for name, value in found.items()}


class InferenceModule(tf.Module):
    """A model with everything around it: resizing before, decoding after.

    `detect` and `detect_encoded` return a dict, padded with zeros to K = `max_detections`, best first:
    `boxes` `xyxy` `[B, K, 4]` in pixels of the original image and cut to it, `scores` `[B, K]`,
    `classes` `[B, K]` int32, `num_detections` `[B]` int32. Both take `options()` as further,
    optional, arguments. Those of `detect_encoded` may be vectors `[B]`, which have a value for each image. K is
    then the largest of `max_detections`.

    Images and options out of bounds raise `tf.errors.InvalidArgumentError` before anything of their size is
    allocated: more than `max_pixels` in an encoded image or in all images of a batch together, more than
    `limits.MAX_BATCH` images, and options out of the bounds that `DecodeConfig` has.
    """

    def __init__(
        self,
        model: Callable[..., Outputs],
        decode: DecodeConfig,
        resize: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = resize,
        network: Callable[..., Outputs] | None = None,
    ) -> None:
        """A module around a model.

        Args:
            model: maps images `[B, H, W, 3]`, RGB from 0 to 255, to heatmaps `confidence` and `distances`. Its
                `map_stride` is the number of pixels from one point of the heatmaps to the next; without it, 1.
            decode: the settings of decoding.
            resize: see the function of this name.
            network: computes the heatmaps in place of `model`, such as `network.folding.folded(model)`.
        """
        super().__init__(name="unitbox")
        self.model = network or model
        self.stride = getattr(model, "map_stride", 1)
        self._decode = decode
        self._resize = resize
        self.detect = self._with_options(self._detect, IMAGES, ONE)
        # TensorFlow Serving makes a vector of each setting in its row format and in batches (tensorflow/serving#494).
        self.detect_encoded = self._with_options(self._detect_encoded, ENCODED, EACH)

    @tf.function(input_signature=[IMAGES], autograph=False)
    def heatmaps(self, images: tf.Tensor) -> Outputs:
        """`confidence` logits and `distances` of the images as shown to the network, a point each `stride` pixels."""
        return self.heatmaps_at(self._checked(images), 1.0)

    @tf.function(input_signature=[IMAGES, SCALE], autograph=False)
    def heatmaps_at(self, images: tf.Tensor, scale: float | tf.Tensor) -> Outputs:
        """`heatmaps` at another scale, such as one of `decode.scales`."""
        shape = tf.shape(images)
        size = decoders.shown_size(shape[1], shape[2], self._decode.max_side, scale)
        return self.model(self._resize(images, size), training=False)

    @tf.function(input_signature=[IMAGES], autograph=False)
    def detect_images(self, images: tf.Tensor) -> Outputs:
        """Detections in RGB images uint8 `[B, H, W, 3]` of one size, with all settings as configured."""
        return self.decoded(self._checked(images), self._decode)

    def decoded(self, images: tf.Tensor, decode: DecodeConfig) -> Outputs:
        """`detect_images` with the settings of `decode` that are in `options()`. The decoder is a plain string."""
        maps = self._all_heatmaps(images)
        return decoders.decode_scales(maps, tf.shape(images)[1:3], decode, self.stride)

    def _with_options(
        self, function: Callable[..., Outputs], data: tf.TensorSpec, shape: list[int] | None
    ) -> Any:
        """A `tf.function` of `data` and of `options()`, which have that shape and may be left out."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(data.name, kind)]
        dtypes = options()
        for name, dtype in dtypes.items():
            default = tf.constant(getattr(self._decode, name), dtype)
            parameters.append(inspect.Parameter(name, kind, default=default))

        def with_options(values: tf.Tensor, *given_options: tf.Tensor) -> Outputs:
            given = dict(zip(dtypes, given_options, strict=True))
            return function(values, decoders.with_tensors(self._decode, **given))

        # From here tf.function takes names and defaults, which would stand twice if spelled out.
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        specs = [tf.TensorSpec(shape, dtype, name) for name, dtype in dtypes.items()]
        return tf.function(with_options, input_signature=[data, *specs], autograph=False)

    def _all_heatmaps(self, images: tf.Tensor) -> list[Outputs]:
        return [self.heatmaps_at(images, scale) for scale in self._decode.scales]

    def _checked(self, images: tf.Tensor) -> tf.Tensor:
        """`images`, if there are not too many of them, and not too many pixels in all."""
        shape = tf.shape(images, tf.int64)
        most = self._decode.max_pixels
        checks = [
            tf.debugging.Assert(
                tf.reduce_prod(shape[:3]) <= most,
                [
                    f"expected images of at most {most} pixels together (max_pixels). Received:",
                    shape,
                ],
            ),
            _check_batch(shape[0]),
        ]
        with tf.control_dependencies(checks):
            return tf.identity(images)

    def _detect(self, images: tf.Tensor, decode: DecodeConfig) -> Outputs:
        decode = checked_options(decode)
        maps = self._all_heatmaps(self._checked(images))
        names = _names()
        index = tf.argmax(tf.equal(decode.decoder, names), output_type=tf.int32)
        size = tf.shape(images)[1:3]
        branches = [
            functools.partial(
                decoders.decode_scales,
                maps,
                size,
                decoders.with_tensors(decode, decoder=name),
                self.stride,
            )
            for name in names
        ]
        return tf.switch_case(index, branches)

    def _detect_encoded(self, encoded: tf.Tensor, decode: DecodeConfig) -> Outputs:
        """Detections in encoded images `[B]` of any sizes, as displayed; `image_graph.decode_image` lists the formats.

        Images are searched one after the other, so that detections do not depend on the other images of
        the batch.
        """
        message = ["expected at least one image, received none"]
        checks = [
            tf.debugging.Assert(tf.size(encoded) > 0, message),
            _check_batch(tf.size(encoded)),
        ]
        decode = checked_options(decode)
        with tf.control_dependencies(checks):
            encoded = tf.identity(encoded)  # else an error of what follows may be raised first
        count = tf.size(encoded)
        each = {name: _of_each(name, getattr(decode, name), count) for name in options()}
        most = tf.reduce_max(each["max_detections"])

        def detect_one(given: tuple[tf.Tensor, dict[str, tf.Tensor]]) -> Outputs:
            photo, chosen = given
            image = image_graph.decoder()(photo, self._decode.max_pixels)
            found = self._detect(image[None], decoders.with_tensors(decode, **chosen))
            return _padded({name: value[0] for name, value in found.items()}, most)

        return tf.map_fn(
            detect_one,
            (encoded, each),
            fn_output_signature={
                "boxes": tf.TensorSpec([None, 4], tf.float32),
                "scores": tf.TensorSpec([None], tf.float32),
                "classes": tf.TensorSpec([None], tf.int32),
                "num_detections": tf.TensorSpec([], tf.int32),
            },
        )
