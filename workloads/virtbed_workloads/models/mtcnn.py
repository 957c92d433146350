"""The three networks of MTCNN in Keras, with their published weights.

Zhang et al., "Joint Face Detection and Alignment Using Multi-task Cascaded Convolutional Networks"
(arXiv 1604.02878). P-Net proposes boxes on a whole picture of any size, R-Net refines crops of
24 x 24 pixels, O-Net decides on crops of 48 x 48. The weights are from the package ``mtcnn`` (MIT).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from virtbed_workloads.packaged import package_file


def _prelu(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.PReLU(shared_axes=[1, 2] if len(x.shape) == 4 else None)(x)


def _convolution(x: keras.KerasTensor, filters: int, kernel: int) -> keras.KerasTensor:
    return _prelu(layers.Conv2D(filters, kernel)(x))


def _dense(x: keras.KerasTensor, units: int) -> keras.KerasTensor:
    """Flatten columns before rows, as in the weights' training."""
    return _prelu(layers.Dense(units)(layers.Flatten()(layers.Permute((2, 1, 3))(x))))


def proposal() -> keras.Model:
    """Build P-Net: float32 (n, h, w, 3) in [-1, 1] to offsets (n, h', w', 4) and (n, h', w', 2).

    A cell of the outputs covers 12 x 12 pixels, and cells are 2 pixels apart. The last axis of the
    second output has the likelihoods of no face and of a face.
    """
    inputs = keras.Input((None, None, 3))
    x = layers.MaxPooling2D(2, padding="same")(_convolution(inputs, 10, 3))
    x = _convolution(_convolution(x, 16, 3), 32, 3)
    offsets = layers.Conv2D(4, 1)(x)
    return keras.Model(inputs, (offsets, layers.Conv2D(2, 1, activation="softmax")(x)))


def refinement() -> keras.Model:
    """Build R-Net: float32 (n, 24, 24, 3) to offsets (n, 4) and likelihoods (n, 2)."""
    inputs = keras.Input((24, 24, 3))
    x = layers.MaxPooling2D(3, 2, padding="same")(_convolution(inputs, 28, 3))
    x = layers.MaxPooling2D(3, 2)(_convolution(x, 48, 3))
    x = _dense(_convolution(x, 64, 2), 128)
    offsets = layers.Dense(4)(x)
    return keras.Model(inputs, (offsets, layers.Dense(2, activation="softmax")(x)))


def output() -> keras.Model:
    """Build O-Net: float32 (n, 48, 48, 3) to offsets (n, 4), landmarks (n, 10), likelihoods."""
    inputs = keras.Input((48, 48, 3))
    x = layers.MaxPooling2D(3, 2, padding="same")(_convolution(inputs, 32, 3))
    x = layers.MaxPooling2D(3, 2)(_convolution(x, 64, 3))
    x = layers.MaxPooling2D(2, padding="same")(_convolution(x, 64, 3))
    x = _dense(_convolution(x, 128, 2), 256)
    offsets, landmarks = layers.Dense(4)(x), layers.Dense(10)(x)
    return keras.Model(inputs, (offsets, landmarks, layers.Dense(2, activation="softmax")(x)))


def trained(network: keras.Model, name: str) -> keras.Model:
    """Set a network's published weights (``pnet``, ``rnet`` or ``onet``); return the network."""
    import joblib

    values: list[NDArray[Any]] = joblib.load(package_file("mtcnn", f"assets/weights/{name}.lz4"))
    network.set_weights([np.asarray(value) for value in values])
    return network
