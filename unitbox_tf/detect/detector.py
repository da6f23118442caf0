"""A trained detector for Python programs: image in, `Detections` out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unitbox_tf import images, inputs, visualize
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import padding, tiling, video
from unitbox_tf.inputs import Image, Images
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Annotation, Detections

if TYPE_CHECKING:
    from unitbox_tf.detect.model import UnitBox


class Found(NamedTuple):
    """What was found in one of several images."""

    name: str
    detections: Detections


class Detector:
    """Finds objects in images and videos. Made by `load`.

    Attributes:
        class_names: of the classes in `Detections.classes`.
        decode: how heatmaps become detections.
    """

    def __init__(
        self,
        detect: Callable[[np.ndarray], Detections],
        class_names: tuple[str, ...],
        decode: DecodeConfig,
        decode_image: Callable[[bytes], Any] = images.decode_photo,
    ) -> None:
        """`detect` maps an RGB image uint8 `[H, W, 3]` to detections in its pixels.

        `decode_image` gives the RGB image that is encoded in bytes, or raises `ValueError`.
        """
        self._detect = detect
        self._decode_image = decode_image
        self.class_names = class_names
        self.decode = decode

    @classmethod
    def of(cls, model: UnitBox, decode: DecodeConfig | None = None) -> Detector:
        """A detector around a Keras model, with its settings of decoding, or with `decode`."""
        from unitbox_tf.detect import graph

        decode = decode or model.decode
        module = graph.InferenceModule(model, decode)

        def detect(image: np.ndarray) -> Detections:
            return padding.unpad(module.detect_images(image[None]), [image.shape[:2]])[0]

        return cls(detect, model.class_names, decode)

    def __call__(self, image: Image) -> Detections:
        """Detections in one image.

        Args:
            image: the path of an image, an encoded image (JPEG, PNG, BMP, GIF), a PIL image of any mode, or
                an RGB array uint8 `[H, W, 3]`. The EXIF orientation of a JPEG is applied, so boxes
                are in pixels of the image as displayed.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no image, or the array has another shape or type.
        """
        return self._detect(self.read(image))

    def read(self, image: Image) -> np.ndarray:
        """The RGB image uint8 `[H, W, 3]` in which `__call__` would look for objects; same argument and errors."""
        return inputs.read_image(image, self._decode_image)

    def many(
        self, images: Images, *, problems: Problems | None = None, progress: bool = False
    ) -> Iterator[Found]:
        """Detections of one image after the other, each with its name; images are read as results are asked for.

        Args:
            images: a list or an iterator of what `Detector` takes, a folder, a pattern such as
                `"holiday/*.jpg"`, an array `[N, H, W, 3]`, or a mixed list; `pictures.find` tells what
                each stands for, and what it is called.
            problems: images that cannot be read are left out and added here. Without it, the first of
                them raises what `__call__` does.
            progress: shows a bar on a terminal.

        Raises:
            ValueError: a folder without images, a pattern that nothing matches, or something that is no
                image; at once, unless `images` is an iterator.
        """
        found = inputs.find(images)
        if progress:
            found = Progress(found, "detecting", len(found) if isinstance(found, list) else None)
        return self._each(found, problems)

    def _each(self, found: Iterable[inputs.Picture], problems: Problems | None) -> Iterator[Found]:
        # Images of one size in one batch take 0.95 of the time on a CPU: not worth its conditions.
        for name, image in found:
            try:
                array = self.read(image)
            except (OSError, ValueError) as error:
                if problems is None:
                    raise
                message = str(error).removeprefix(f"{name}: ")
                problems.add(images.UNDECODABLE, name, message)
            else:
                yield Found(name, self._detect(array))

    def tiled(self, tile: int | None = None) -> Detector:
        """This detector for images much larger than `decode.max_side`: it looks at overlapping tiles of them, too.

        Args:
            tile: side of a tile in pixels; `decode.max_side` if left out. See `tiling.detect_tiled`.

        Raises:
            ValueError: `tile` is below 1.
        """
        side = self.decode.max_side if tile is None else tile
        if side < 1:
            raise ValueError(f"Expected a tile of at least 1 px a side. Received: {side}")

        def detect(image: np.ndarray) -> Detections:
            return tiling.detect_tiled(self._detect, image, side, nms_iou=self.decode.nms_iou)

        return Detector(detect, self.class_names, self.decode, self._decode_image)

    def frames(
        self, source: str | Path | int, *, progress: bool = False
    ) -> Iterator[tuple[video.Frame, Detections | None]]:
        """Each frame of a video file, or of the webcam of a number, with its detections.

        A frame that cannot be decoded has neither image nor detections; the ones after it come all
        the same.

        Args:
            source: the path of a video, or 0 for the first webcam, which goes on until one stops asking.
            progress: shows a bar on a terminal.

        Raises:
            OSError: there is no such file or webcam.
            ValueError: the file is no video that OpenCV can read.
        """
        return self._frames(video.Video(source), progress)

    def _frames(
        self, opened: video.Video, progress: bool
    ) -> Iterator[tuple[video.Frame, Detections | None]]:
        with opened:
            frames: Iterable[video.Frame] = opened
            if progress:
                frames = Progress(opened, opened.name, opened.stated)
            for frame in frames:
                yield frame, None if frame.image is None else self._detect(frame.image)

    def annotate_video(
        self,
        source: str | Path | int,
        output: str | Path,
        *,
        draw: video.Draw = visualize.draw_detections,
        progress: bool = False,
    ) -> video.Summary:
        """Writes a video with its detections drawn, and a json file beside it with those of each frame.

        Args:
            source: see `frames`; Ctrl-C ends a webcam.
            output: the .mp4 file to write.
            draw: makes the image of a frame from image, detections and names of classes.
            progress: shows a bar on a terminal.

        Raises:
            OSError: there is no such file or webcam, or the video cannot be written.
            ValueError: see `frames`, and `video.annotate`.
        """
        opened = video.Video(source)
        found = self._frames(opened, progress)
        return video.annotate(opened, found, Path(output), self.class_names, draw)


def detect_annotated(
    detector: Detector, annotations: Iterable[Annotation], problems: Problems
) -> tuple[list[Detections], list[Annotation]]:
    """Detections in the images of `annotations`, and the annotations of those images.

    Images that cannot be read are left out of both and added to `problems`.
    """
    detections, seen = [], []
    for annotation in annotations:
        try:
            found = detector(annotation.encoded())
        except (OSError, ValueError) as error:
            problems.add(images.UNDECODABLE, annotation.where, str(error))
        else:
            detections.append(found)
            seen.append(annotation)
    return detections, seen
