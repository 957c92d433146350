"""Application that finds the faces in a photograph, on photographs with known faces.

Scale ``trained``: the cascade MTCNN with the weights of the package ``mtcnn``. Scale ``mlperf``:
SSD with MobileNetV2, MLPerf's object detector, with seeded weights. Seeded weights give meaningless
answers; the expected answers were recorded once on bare metal, as a regression check. Scale
``tiny``: the cascade on small crops of the photographs.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from virtbed_workloads import backend
from virtbed_workloads.contract import Application, ApplicationError, Check, Description
from virtbed_workloads.models import mtcnn, ssd_mobilenet
from virtbed_workloads.packaged import package_file

Boxes = NDArray[np.float32]
"""One row per box: left, top, right, bottom in pixels, and the likelihood of a face."""

SMALLEST = 20  # side of the smallest face to find, in pixels
CELL, STRIDE = 12, 2  # receptive field of P-Net and distance of two cells, in pixels
STEP = 0.709  # scale from one level of the pyramid to the next: half the area
# Minimum likelihoods and maximum overlaps of the three stages. They are the package's, except the
# last likelihood: at the package's 0.8 a buckle of the astronaut's suit is a face.
PROPOSED, REFINED, DECIDED = 0.6, 0.7, 0.9
WITHIN_LEVEL, ACROSS = 0.5, 0.7
AGREES = 0.5  # minimum overlap of a found box with a known one
GRID = 56  # places are rounded to this many pixels; no face is close to a rounding boundary
MOST = 100  # maximum number of SSD's detections, per class and in total


# Faces as seen by a person: left, top, right, bottom in pixels.
Known = tuple[tuple[int, int, int, int], ...]
PHOTOGRAPHS: dict[str, tuple[str, str, Known]] = {
    "astronaut.png": ("skimage", "data/astronaut.png", ((180, 68, 268, 174),)),
    "coffee.png": ("skimage", "data/coffee.png", ()),
    "china.jpg": ("sklearn", "datasets/images/china.jpg", ()),
    "portrait.png": ("insightface", "data/images/Tom_Hanks_54745.png", ((1, 1, 83, 111),)),
    "six.jpg": (
        "insightface",
        "data/images/t1.jpg",
        (
            (53, 270, 167, 402),
            (266, 146, 369, 266),
            (465, 266, 569, 408),
            (743, 342, 845, 474),
            (905, 60, 1013, 201),
            (1130, 278, 1225, 402),
        ),
    ),
}
# Crops for the tiny scale: source, box (left, top, right, bottom) in pixels, faces in the crop.
TINY_SIDE = 72
CUTS: dict[str, tuple[str, tuple[int, int, int, int], Known]] = {
    "cup.png": ("coffee.png", (200, 100, 400, 300), ()),
    "face.png": ("astronaut.png", (140, 30, 310, 200), ((17, 16, 54, 61),)),
}
SSD_SEED = 310  # the answers below are valid for this seed only, with clear margins


def photograph(name: str) -> bytes:
    """Read an encoded photograph."""
    package, path, _ = PHOTOGRAPHS[name]
    return package_file(package, path).read_bytes()


@dataclass(frozen=True)
class Pyramid:
    """A photograph, and its copies at the scales at which faces have P-Net's size."""

    image: Image.Image
    levels: tuple[NDArray[np.float32], ...]
    scales: tuple[float, ...]


def decode(request: bytes) -> Image.Image:
    """Decode a photograph.

    Raises:
        ApplicationError: Pillow cannot read the request, or the image is truncated.
    """
    try:
        with Image.open(io.BytesIO(request)) as encoded:
            return encoded.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ApplicationError(
            f"{len(request)} bytes found that are not a whole image ({error}); "
            "a JPEG or PNG photograph is needed"
        ) from error


def overlap(boxes: Boxes, others: Boxes, *, of_smaller: bool = False) -> NDArray[np.float32]:
    """Return the intersection over union of each of n boxes with each of m others, (n, m).

    With ``of_smaller``, the intersection is divided by the smaller box instead, so that a box
    inside another one has overlap 1.
    """
    low = np.maximum(boxes[:, np.newaxis, :2], others[np.newaxis, :, :2])
    high = np.minimum(boxes[:, np.newaxis, 2:4], others[np.newaxis, :, 2:4])
    shared = np.maximum(high - low, 0).prod(axis=2)
    first, second = ((b[:, 2:4] - b[:, :2]).prod(axis=1) for b in (boxes, others))
    if of_smaller:
        return np.asarray(shared / np.minimum(first[:, np.newaxis], second))
    return np.asarray(shared / (first[:, np.newaxis] + second - shared))


def suppress(boxes: Boxes, most: float, *, of_smaller: bool = False) -> Boxes:
    """Non-maximum suppression: of boxes that overlap more than ``most``, keep the likeliest.

    Greedy, best first; the result is sorted by likelihood.
    """
    boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    over = overlap(boxes, boxes, of_smaller=of_smaller) > most
    kept = np.ones(len(boxes), bool)
    for index in range(len(boxes)):
        if kept[index]:
            kept[index + 1 :] &= ~over[index, index + 1 :]
    return boxes[kept]


def square(boxes: Boxes) -> Boxes:
    """Widen each box to a square around its centre."""
    side = (boxes[:, 2:4] - boxes[:, :2]).max(axis=1, keepdims=True)
    centre = (boxes[:, :2] + boxes[:, 2:4]) / 2
    return np.hstack([centre - side / 2, centre + side / 2, boxes[:, 4:]])


def shift(boxes: Boxes, offsets: NDArray[np.float32], likelihoods: NDArray[np.float32]) -> Boxes:
    """Move each side of each box by its offset, and set the likelihoods.

    Offsets are parts of the box's width and height.
    """
    sizes = np.tile(boxes[:, 2:4] - boxes[:, :2] + 1, 2)
    moved = boxes[:, :4] + offsets * sizes
    return np.hstack([moved, likelihoods[:, 1:]]).astype("float32")


def normalised(pixels: Any) -> NDArray[np.float32]:
    """Scale bytes to about -1 to 1, as in MTCNN's training."""
    return np.asarray((np.asarray(pixels, "float32") - 127.5) / 128)


class Mtcnn(Application):
    """The cascade: scale ``trained``.

    Preprocessing decodes and builds the pyramid. Inference is all three stages, because each
    network works on the boxes of the previous one. Postprocessing leaves one box per face.
    """

    version: ClassVar[str] = "1"

    def load(self) -> Description:
        """Build the three networks with their published weights."""
        self._propose = backend.compiled(
            mtcnn.trained(mtcnn.proposal(), "pnet"), [((1, None, None, 3), "float32")]
        )
        self._refine = backend.compiled(
            mtcnn.trained(mtcnn.refinement(), "rnet"), [((None, 24, 24, 3), "float32")]
        )
        self._decide = backend.compiled(
            mtcnn.trained(mtcnn.output(), "onet"), [((None, 48, 48, 3), "float32")]
        )
        return Description(model="MTCNN", weights="trained")

    def inputs(self) -> Mapping[str, bytes]:
        """Read the photographs, still encoded."""
        return {name: photograph(name) for name in PHOTOGRAPHS}

    def known(self, name: str) -> Known:
        """Return the faces in an input."""
        return PHOTOGRAPHS[name][2]

    def preprocess(self, request: bytes) -> Pyramid:
        """Decode, and resize to each level of the pyramid.

        Raises:
            ApplicationError: Pillow cannot read the request, or the image is truncated.
        """
        image = decode(request)
        scales, scale = [], CELL / SMALLEST
        while min(image.size) * scale >= CELL:
            scales.append(scale)
            scale *= STEP
        sizes = [(round(image.width * scale), round(image.height * scale)) for scale in scales]
        levels = tuple(
            normalised(image.resize(size, Image.Resampling.BOX))[np.newaxis] for size in sizes
        )
        return Pyramid(image, levels, tuple(scales))

    def infer(self, features: Pyramid) -> Boxes:
        """Run the cascade; return the boxes that O-Net classifies as faces; they may overlap."""
        proposed = [
            suppress(self._proposals(level, scale), WITHIN_LEVEL)
            for level, scale in zip(features.levels, features.scales, strict=True)
        ]
        boxes = square(suppress(np.concatenate([np.empty((0, 5), "float32"), *proposed]), ACROSS))
        if len(boxes):
            offsets, likelihoods = self._refine(self._crops(features.image, boxes, 24))
            boxes = shift(boxes, offsets, likelihoods)
            boxes = square(suppress(boxes[boxes[:, 4] > REFINED], ACROSS))
        if len(boxes):
            offsets, _, likelihoods = self._decide(self._crops(features.image, boxes, 48))
            boxes = shift(boxes, offsets, likelihoods)
        return boxes[boxes[:, 4] > DECIDED]

    def _proposals(self, level: NDArray[np.float32], scale: float) -> Boxes:
        (offsets,), (likelihoods,) = self._propose(level)
        rows, columns = np.nonzero(likelihoods[..., 1] > PROPOSED)
        corner = np.stack([columns, rows], axis=1) * STRIDE
        boxes = np.hstack([corner, corner + CELL]) + offsets[rows, columns] * CELL
        faces = likelihoods[rows, columns, 1:]
        return np.hstack([boxes / scale, faces]).astype("float32")

    def _crops(self, image: Image.Image, boxes: Boxes, side: int) -> NDArray[np.float32]:
        """Crop the boxes, black outside the photograph, and resize them."""
        corners = np.rint(boxes[:, :4]).astype(int).tolist()
        crops = [
            image.crop(corner).resize((side, side), Image.Resampling.BILINEAR) for corner in corners
        ]
        return normalised(np.stack([np.asarray(crop) for crop in crops]))

    def postprocess(self, outputs: Boxes) -> Boxes:
        """Leave one box per face, the likeliest first."""
        return suppress(outputs, ACROSS, of_smaller=True)

    def describe(self, answer: Boxes) -> str:
        """List the faces' centres from left to right, in units of `GRID` pixels."""
        return f"{len(answer)} faces" + "".join(
            f", {round(x / GRID)}:{round(y / GRID)}" for x, y in sorted(_centres(answer))
        )

    def check(self, name: str, answer: Boxes) -> Check:
        """Compare with the known faces: same number, and each overlaps a box by `AGREES`.

        The score is the smallest overlap.
        """
        known = np.array(self.known(name), "float32").reshape(-1, 4)
        best = overlap(known, answer).max(axis=1, initial=0.0)
        right = len(answer) == len(known) and bool((best >= AGREES).all())
        least = round(float(best.min()), 3) if len(known) else None
        return Check(right, f"{len(known)} faces, overlap {AGREES} or more", least)


class TinyMtcnn(Mtcnn):
    """The cascade on small crops: scale ``tiny``."""

    def inputs(self) -> Mapping[str, bytes]:
        """Crop the photographs, and encode the crops."""
        cuts = {}
        for name, (source, box, _) in CUTS.items():
            cut = decode(photograph(source)).resize((TINY_SIDE, TINY_SIDE), box=box)
            encoded = io.BytesIO()
            cut.save(encoded, "PNG")
            cuts[name] = encoded.getvalue()
        return cuts

    def known(self, name: str) -> Known:
        """Return the faces in a crop."""
        return CUTS[name][2]


@dataclass(frozen=True)
class Detections:
    """SSD's detections, likeliest first.

    ``boxes`` (n, 4) are parts of the sides, ``classes`` (n,) and ``scores`` (n,) likelihoods.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32]


class SsdMobileNet(Application):
    """SSD with MobileNetV2 and seeded weights: scale ``mlperf``."""

    version: ClassVar[str] = "1"
    answers: ClassVar[Mapping[str, str]] = {
        "astronaut.png": "class 22 at 3:3",
        "coffee.png": "class 10 at 1:0",
        "china.jpg": "class 72 at 1:2",
        "portrait.png": "class 31 at 2:1",
        "six.jpg": "class 12 at 2:3",
    }

    def load(self) -> Description:
        """Build the network with seeded weights, and its anchors."""
        network = ssd_mobilenet.build()
        ssd_mobilenet.seed(network, SSD_SEED)
        side = ssd_mobilenet.SIDE
        self._call = backend.compiled(network, [((1, side, side, 3), "float32")])
        self._anchors = ssd_mobilenet.anchors()
        return Description(model="SSD-MobileNetV2", weights="seeded")

    def inputs(self) -> Mapping[str, bytes]:
        """Read the photographs, still encoded."""
        return {name: photograph(name) for name in PHOTOGRAPHS}

    def preprocess(self, request: bytes) -> NDArray[np.float32]:
        """Decode, resize to a square regardless of the proportions, as SSD does, scale to [-1, 1].

        Raises:
            ApplicationError: Pillow cannot read the request, or the image is truncated.
        """
        side = (ssd_mobilenet.SIDE,) * 2
        image = decode(request).resize(side, Image.Resampling.BILINEAR)
        pixels = np.asarray(image, "float32")[np.newaxis]
        return np.asarray(pixels / np.float32(127.5) - np.float32(1))

    def infer(self, features: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
        """Run the network; return offsets (1917, 4) and logits (1917, 91)."""
        return tuple(output[0] for output in self._call(features))

    def postprocess(self, outputs: tuple[NDArray[Any], ...]) -> Detections:
        """Decode the boxes, suppress overlapping ones per class, keep the best `MOST`."""
        import tensorflow as tf

        offsets, logits = outputs
        boxes = ssd_mobilenet.decode(offsets, self._anchors)
        scores = 1 / (1 + np.exp(-logits[:, 1:]))  # without the background
        found = tf.image.combined_non_max_suppression(
            boxes[np.newaxis, :, np.newaxis], scores[np.newaxis], MOST, MOST,
            iou_threshold=0.6, score_threshold=0.3,
        )  # fmt: skip
        number = int(found.valid_detections[0])
        return Detections(
            found.nmsed_boxes[0, :number].numpy(),
            found.nmsed_classes[0, :number].numpy().astype(int) + 1,
            found.nmsed_scores[0, :number].numpy(),
        )

    def describe(self, answer: Detections) -> str:
        """Return the class of the likeliest detection and its place in quarters of the sides."""
        top, left, bottom, right = (answer.boxes[0] * 4).tolist()
        return f"class {answer.classes[0]} at {(top + bottom) / 2:.0f}:{(left + right) / 2:.0f}"

    def check(self, name: str, answer: Detections) -> Check:
        """Compare with the answer recorded for the seeded weights."""
        expected = self.answers[name]
        return Check(self.describe(answer) == expected, expected, round(float(answer.scores[0]), 4))


def _centres(boxes: Boxes) -> list[tuple[float, float]]:
    return [tuple(row) for row in ((boxes[:, :2] + boxes[:, 2:4]) / 2).tolist()]
