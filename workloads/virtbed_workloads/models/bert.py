"""BERT's encoder in Keras, and the mapping of MiniLM's published weights to it.

Devlin et al., "BERT" (arXiv 1810.04805): token, position and segment embeddings, then layers of
self-attention and a feed-forward network, each normalised after its residual.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from virtbed_workloads.models.seeded import GAIN, seed_weights

EPSILON = 1e-12  # of the layer norms, as published
INITIAL_DEVIATION = 0.02  # of weights before training, as published
MASKED = -1e9  # added to the attention scores of padding, so that their softmax is 0


@dataclass(frozen=True)
class Architecture:
    """The shape of one encoder; ``vocabulary`` and ``positions`` are sizes of its embeddings."""

    depth: int
    width: int
    heads: int
    feed_forward: int
    vocabulary: int = 30522
    positions: int = 512


MINILM = Architecture(depth=6, width=384, heads=12, feed_forward=1536)
BASE = Architecture(depth=12, width=768, heads=12, feed_forward=3072)
# For emulated guests, where each layer and each multiplication costs tens of times more.
TINY = Architecture(depth=1, width=32, heads=2, feed_forward=64, positions=64)


def build(architecture: Architecture, head: int = 0) -> keras.Model:
    """Build the encoder.

    Args:
        architecture: The encoder's shape.
        head: Number of logits per token; 0 for no head.

    Returns:
        A model from four tensors (n, length) - token ids, segment ids, positions (int32) and the
        mask (float32, 1 where there is a token) - to (n, length, width), or (n, length, head).
    """
    width, heads = architecture.width, architecture.heads

    def norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return layers.LayerNormalization(epsilon=EPSILON, name=name)(x)

    def split(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        x = layers.Reshape((-1, heads, width // heads))(layers.Dense(width, name=name)(x))
        return ops.transpose(x, (0, 2, 1, 3))

    tokens, segments, positions = (keras.Input((None,), dtype="int32") for _ in range(3))
    mask = keras.Input((None,), dtype="float32")
    x = layers.Embedding(architecture.vocabulary, width, name="tokens")(tokens)
    x = layers.Add()(
        [
            x,
            layers.Embedding(2, width, name="segments")(segments),
            layers.Embedding(architecture.positions, width, name="positions")(positions),
        ]
    )
    x = norm(x, "embedded")
    unseen = (1.0 - ops.expand_dims(mask, (1, 2))) * MASKED
    for index in range(architecture.depth):
        query, key, value = (split(x, f"{name}_{index}") for name in ("query", "key", "value"))
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / (width / heads) ** 0.5
        mixed = ops.matmul(ops.softmax(scores + unseen), value)
        mixed = layers.Reshape((-1, width))(ops.transpose(mixed, (0, 2, 1, 3)))
        x = norm(x + layers.Dense(width, name=f"mixed_{index}")(mixed), f"attended_{index}")
        wide = layers.Dense(architecture.feed_forward, name=f"wide_{index}")(x)
        wide = ops.gelu(wide, approximate=False)
        x = norm(x + layers.Dense(width, name=f"narrow_{index}")(wide), f"out_{index}")
    if head:
        x = layers.Dense(head, name="head")(x)
    return keras.Model([tokens, segments, positions, mask], x)


# Names of the layers here to those of the published state dict, without "weight" and "bias".
_PUBLISHED = {
    "tokens": "embeddings.word_embeddings",
    "segments": "embeddings.token_type_embeddings",
    "positions": "embeddings.position_embeddings",
    "embedded": "embeddings.LayerNorm",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mixed": "attention.output.dense",
    "attended": "attention.output.LayerNorm",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
    "out": "output.LayerNorm",
}


def seed(model: keras.Model, seed: int) -> None:
    """Set seeded weights, with kernels as small as BERT's initial ones.

    With larger kernels, attention makes all tokens alike within a few layers.
    """
    seed_weights(model, seed)
    for layer in model.layers:
        if isinstance(layer, layers.Dense) and layer.name != "head":
            gain = INITIAL_DEVIATION * layer.kernel.shape[0] ** 0.5 / GAIN
            layer.kernel.assign(layer.kernel * gain)


def set_weights(model: keras.Model, state: Mapping[str, NDArray[np.float32]]) -> None:
    """Set the weights of an encoder without head from a state dict in PyTorch's layout.

    Raises:
        KeyError: The state dict lacks a weight.
        ValueError: A weight's shape does not fit.
    """
    for layer in model.layers:
        if not layer.weights:
            continue
        name, _, index = layer.name.partition("_")
        prefix = f"encoder.layer.{index}." if index else ""
        published = prefix + _PUBLISHED[name]
        values: list[NDArray[Any]] = [state[f"{published}.weight"]]
        if isinstance(layer, layers.Dense):
            values[0] = values[0].T
        if not isinstance(layer, layers.Embedding):
            values.append(state[f"{published}.bias"])
        layer.set_weights(values)
