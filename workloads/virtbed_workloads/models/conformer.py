"""The Conformer with a CTC head, a network for speech recognition.

Gulati et al., "Conformer: Convolution-augmented Transformer for Speech Recognition"
(arXiv 2005.08100), in its medium size, with absolute instead of relative positions.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from virtbed_workloads.models.seeded import seed_weights

MELS = 80
LETTERS = "abcdefghijklmnopqrstuvwxyz' "  # the CTC blank follows as the last class
LAYERS, WIDTH, HEADS, KERNEL = 16, 256, 4, 31
BRANCH = 0.2  # scale of the last kernel of a branch: as when trained, a layer changes little
LONGEST = 4096  # maximum frames after the first convolutions, of 40 ms each


class Positions(layers.Layer):  # type: ignore[misc]
    """Add sinusoidal position encodings to each frame (Vaswani et al., arXiv 1706.03762)."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Compute the encodings once."""
        width = shape[-1]
        assert width is not None
        rates = np.exp(-np.log(10_000) * np.arange(0, width, 2) / width)
        angles = np.arange(LONGEST)[:, np.newaxis] * rates
        self.sines = np.hstack([np.sin(angles), np.cos(angles)]).astype("float32")

    def call(self, x: Any) -> Any:
        """Add to (n, frames, width)."""
        return x + ops.convert_to_tensor(self.sines)[: ops.shape(x)[1]]

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the same shape; JAX cannot infer it for a length that varies."""
        return shape


def build() -> keras.Model:
    """Build the network: float32 (n, frames, 80) to logits (n, frames / 4, 29)."""

    numbers = count()

    def branch() -> str:
        return f"branch_{next(numbers)}"

    def norm(x: Any) -> Any:
        return layers.LayerNormalization()(x)

    def feed_forward(x: Any) -> Any:
        y = layers.Dense(4 * WIDTH, activation="swish")(norm(x))
        return x + 0.5 * layers.Dense(WIDTH, name=branch())(y)

    def attend(x: Any) -> Any:
        y = norm(x)
        return x + layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name=branch())(y, y)

    def convolve(x: Any) -> Any:
        y, gate = ops.split(layers.Dense(2 * WIDTH)(norm(x)), 2, axis=-1)
        y = layers.DepthwiseConv1D(KERNEL, padding="same")(y * ops.sigmoid(gate))
        y = ops.silu(layers.BatchNormalization()(y))
        return x + layers.Dense(WIDTH, name=branch())(y)

    inputs = keras.Input((None, MELS))
    x = ops.expand_dims(inputs, -1)
    for _ in range(2):
        x = layers.Conv2D(WIDTH, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Reshape((-1, MELS // 4 * WIDTH))(x)
    x = Positions()(layers.Dense(WIDTH)(x))
    for _ in range(LAYERS):
        x = norm(feed_forward(convolve(attend(feed_forward(x)))))
    return keras.Model(inputs, layers.Dense(len(LETTERS) + 1)(x))


def seed(model: keras.Model, seed: int) -> None:
    """Set seeded weights, scaled so that the output still depends on the input."""
    seed_weights(model, seed)
    for layer in model.layers:
        if layer.name.startswith("branch_"):
            for variable in layer.trainable_weights:
                variable.assign(variable * BRANCH)
