"""A trained detector for Python programs: image in, `Detections` out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unitbox_tf import image_headers, images, inputs, visualize
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import padding, tiling, video, video_reading
from unitbox_tf.inputs import Image, Images
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Annotation, Detections

if TYPE_CHECKING:
    from unitbox_tf.detect.model import UnitBox


class Found(NamedTuple):
    """The detections in one of several images."""

    name: str
    detections: Detections


class Detector:
    """Finds objects in images and videos. Made by `load`.

    Attributes:
        class_names: the names of the classes in `Detections.classes`.
        decode: how heatmaps become detections.
    """

    def __init__(
        self,
        detect: Callable[[np.ndarray], Detections],
        class_names: tuple[str, ...],
        decode: DecodeConfig,
        decode_image: Callable[[bytes, int], Any] = images.decode_photo,
    ) -> None:
        """`detect` maps an RGB image uint8 `[H, W, 3]` to detections in its pixels.

        `decode_image` decodes bytes to an RGB image of at most a number of pixels, or raises `ValueError`.
        """
        self._process = os.getpid()
        self._find = detect
        self._decode_image = decode_image
        self.class_names = class_names
        self.decode = decode

    @classmethod
    def of(cls, model: UnitBox, decode: DecodeConfig | None = None) -> Detector:
        """A detector around a Keras model. Without `decode`, it decodes with the model's settings."""
        from unitbox_tf.detect import graph

        decode = decode or model.decode
        module = graph.InferenceModule(model, decode)

        def detect(image: np.ndarray) -> Detections:
            return padding.unpad(module.detect_images(image[None]), [image.shape[:2]])[0]

        return cls(detect, model.class_names, decode)

    def __call__(self, image: Image) -> Detections:
        """Detections in one image.

        Args:
            image: the path of an image, an encoded image (of `images.FORMATS`), a PIL image, or an RGB
                array uint8 `[H, W, 3]`. The orientation in EXIF or XMP is applied, so boxes are in
                pixels of the image as displayed.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no image, or the array has another shape or type. It is a `limits.TooLarge` if the
                image has more than `decode.max_pixels`.
            MemoryError: memory does not suffice.
            RuntimeError: the detector was made before this process was forked.
        """
        return self._detect(self.read(image))

    def _detect(self, image: np.ndarray) -> Detections:
        check_process(self._process)
        image_headers.check_size(image.shape[:2], self.decode.max_pixels)
        try:
            return self._find(image)
        except Exception as error:
            if not _lacks_memory(error):
                raise
            raise MemoryError(
                f"memory does not suffice to detect in an image of {image.shape[1]} x {image.shape[0]} pixels, which "
                f"is shown to the network with up to {self.decode.max_side} a side"
            ) from error

    def read(self, image: Image) -> np.ndarray:
        """The RGB image uint8 `[H, W, 3]` that `__call__` would search. Argument and errors are the same."""
        check_process(self._process)  # decoding by TensorFlow would wait for ever, too
        return inputs.read_image(image, self._decode_image, self.decode.max_pixels)

    def many(
        self, images: Images, *, progress: bool = False, problems: Problems | None = None
    ) -> Iterator[Found]:
        """Detections of one image after the other, each with its name. An image is read when its result is asked for.

        Args:
            images: a folder, a pattern such as `"holiday/*.jpg"`, an array `[N, H, W, 3]`, or a list or an
                iterator of these and of everything that `__call__` takes. `inputs.find` describes which
                images each stands for, and their names.
            progress: shows a bar on a terminal.
            problems: unreadable images are left out and added here. Without it, the first unreadable image
                raises the error of `__call__`.

        Raises:
            ValueError: a folder has no images, nothing matches a pattern, or an item is no image. The
                error is raised at once, unless `images` is an iterator.
        """
        found = inputs.find(images)
        if progress:
            found = Progress(found, "detecting", len(found) if isinstance(found, list) else None)
        return self._each(found, problems)

    def _each(self, found: Iterable[inputs.Picture], problems: Problems | None) -> Iterator[Found]:
        # Batches of images of one size take 0.95 of the time on a CPU: not worth the extra code.
        for name, image in found:
            try:
                array = self.read(image)
                detections = self._detect(array)
            except images.UNREADABLE as error:
                if problems is None:
                    raise
                message = str(error).removeprefix(f"{name}: ")
                problems.add(images.UNDECODABLE, name, message)
            else:
                yield Found(name, detections)

    def tiled(self, tile: int | None = None) -> Detector:
        """This detector for images much larger than `decode.max_side`: it also searches overlapping tiles of them.

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
    ) -> Iterator[tuple[video_reading.Frame, Detections | None]]:
        """Each frame of a video file, a network stream or a webcam, with its detections.

        A frame that cannot be decoded has neither image nor detections. The frames after it follow.

        Args:
            source: the path of a video, the address of a stream (`rtsp://...`), or the number of a webcam:
                0 is the first. A stream or webcam goes on until the caller stops asking.
            progress: shows a bar on a terminal.

        Raises:
            OSError: there is no such file, stream or webcam.
            ValueError: the file is no video that FFmpeg can read.
        """
        return self._frames(video.Video(source), progress)

    def _frames(
        self, opened: video.Video, progress: bool
    ) -> Iterator[tuple[video_reading.Frame, Detections | None]]:
        with opened:
            frames: Iterable[video_reading.Frame] = opened
            if progress:
                frames = Progress(opened, opened.name, opened.expected)
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
        """Writes a video with drawn detections, and beside it a json file with the detections of each frame.

        Args:
            source: see `frames`; Ctrl-C ends a stream or webcam.
            output: the .mp4 file to write.
            draw: draws a frame: maps image, detections and class names to an image.
            progress: shows a bar on a terminal.

        Raises:
            OSError: there is no such file, stream or webcam, or the video cannot be written.
            ValueError: see `frames`, and `video.annotate`.
        """
        opened = video.Video(source)
        found = self._frames(opened, progress)
        return video.annotate(opened, found, Path(output), self.class_names, draw)


def _lacks_memory(error: Exception) -> bool:
    """True if memory did not suffice. TensorFlow and ONNX Runtime have errors of their own for this."""
    engines = ("ResourceExhaustedError", "RuntimeException", "Fail")
    return isinstance(error, MemoryError) or (
        type(error).__name__ in engines and ("alloc" in str(error) or "OOM" in str(error))
    )


def check_process(made_in: int) -> None:
    """Raises `RuntimeError` in a process that was forked after a detector was made in the process `made_in`.

    The threads of TensorFlow and of other engines do not live on in the fork, which would wait for them for ever.
    """
    if os.getpid() != made_in:
        raise RuntimeError(
            f"this detector was made in process {made_in}, and is used in process {os.getpid()}, which was forked "
            "from it. Make the detector after the fork, in each process, or start processes by "
            'multiprocessing.get_context("spawn"); with gunicorn, leave out --preload'
        )


def detect_annotated(
    detector: Detector, annotations: Iterable[Annotation], *, problems: Problems | None = None
) -> tuple[list[Detections], list[Annotation]]:
    """Detections in the images of `annotations`, and the annotations of those images.

    Images that cannot be read are left out of both and added to `problems`.
    """
    problems = Problems.of(problems)
    detections, seen = [], []
    for annotation in annotations:
        try:
            found = detector(annotation.encoded(detector.decode.max_pixels))
        except images.UNREADABLE as error:
            problems.add(images.UNDECODABLE, annotation.where, str(error))
        else:
            detections.append(found)
            seen.append(annotation)
    return detections, seen
