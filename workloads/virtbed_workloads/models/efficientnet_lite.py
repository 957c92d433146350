"""EfficientNet-Lite in Keras, and the conversion of its published weights.

Architecture: Tan and Le, "EfficientNet" (arXiv 1905.11946), in the Lite form of Google's TPU
models (no squeeze-and-excite, ReLU6 for swish, stem and head not scaled). At inference a batch
norm is an affine map of the convolution before it. So it is folded into that convolution's kernel
and bias: fewer layers to trace, the same function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

BATCH_NORM_EPSILON = 1e-3  # the TPU models' value

Weights = list[NDArray[Any]]
"""Kernel of one convolution in Keras's order, and its bias."""


@dataclass(frozen=True)
class Block:
    """One inverted residual block: expand, depthwise convolution, project."""

    filters: int
    expansion: int
    kernel: int
    stride: int


@dataclass(frozen=True)
class Architecture:
    """The shape of one network; ``side`` is the input's side in pixels."""

    side: int
    stem: int
    blocks: tuple[Block, ...]
    head: int
    classes: int


def _stages(*stages: tuple[int, int, int, int, int]) -> tuple[Block, ...]:
    """Expand stages (repeats, filters, expansion, kernel, stride) to blocks.

    Only the first block of a stage has the stride.
    """
    return tuple(
        Block(filters, expansion, kernel, stride if repeat == 0 else 1)
        for repeats, filters, expansion, kernel, stride in stages
        for repeat in range(repeats)
    )


LITE0 = Architecture(
    side=224,
    stem=32,
    blocks=_stages(
        (1, 16, 1, 3, 1),
        (2, 24, 6, 3, 2),
        (2, 40, 6, 5, 2),
        (3, 80, 6, 3, 2),
        (3, 112, 6, 5, 1),
        (4, 192, 6, 5, 2),
        (1, 320, 6, 3, 1),
    ),
    head=1280,
    classes=1000,
)

# For emulated guests, where each layer to trace and each multiplication costs tens of times more.
TINY = Architecture(
    side=64, stem=8, blocks=(Block(8, 1, 3, 2), Block(16, 4, 3, 2)), head=64, classes=10
)


def build(architecture: Architecture) -> keras.Model:
    """Build the network: float32 (n, side, side, 3) in [-1, 1] to logits (n, classes)."""
    layers = keras.layers

    def relu6(x: keras.KerasTensor) -> keras.KerasTensor:
        return layers.Activation("relu6")(x)

    # "same" pads a strided convolution unevenly, more at the end, as in the weights' training.
    inputs = keras.Input((architecture.side, architecture.side, 3))
    x = relu6(layers.Conv2D(architecture.stem, 3, strides=2, padding="same")(inputs))
    for block in architecture.blocks:
        skip, channels = x, x.shape[-1]
        if block.expansion > 1:
            x = relu6(layers.Conv2D(channels * block.expansion, 1)(x))
        x = layers.DepthwiseConv2D(block.kernel, strides=block.stride, padding="same")(x)
        x = layers.Conv2D(block.filters, 1)(relu6(x))
        if block.stride == 1 and block.filters == channels:
            x = layers.Add()([x, skip])
    x = relu6(layers.Conv2D(architecture.head, 1)(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(architecture.classes)(x))


def set_weights(model: keras.Model, weights: Iterable[Weights]) -> None:
    """Set kernel and bias of each layer that has weights, in order.

    Raises:
        ValueError: The number or a shape of the weights does not fit the network.
    """
    weighted = [layer for layer in model.layers if layer.weights]
    for layer, values in zip(weighted, weights, strict=True):
        layer.set_weights(values)


def trained_weights(
    architecture: Architecture, state: dict[str, NDArray[Any]]
) -> Iterator[Weights]:
    """Convert a PyTorch state dict to Keras weights, in the order of the layers.

    Args:
        architecture: The network of the state dict.
        state: Parameter names to arrays, convolutions in PyTorch's OIHW.
    """

    def folded(convolution: str, norm: str) -> Weights:
        kernel = state[f"{convolution}.weight"]
        scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
        bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
        kernel = kernel * scale[:, None, None, None]
        # OIHW to HWIO; a depthwise kernel is (channels, 1, h, w) and becomes (h, w, channels, 1).
        order = (2, 3, 0, 1) if "depthwise" in convolution else (2, 3, 1, 0)
        return [kernel.transpose(order), bias]

    yield folded("_conv_stem", "_bn0")
    for index, block in enumerate(architecture.blocks):
        name = f"_blocks.{index}"
        if block.expansion > 1:
            yield folded(f"{name}._expand_conv", f"{name}._bn0")
        yield folded(f"{name}._depthwise_conv", f"{name}._bn1")
        yield folded(f"{name}._project_conv", f"{name}._bn2")
    yield folded("_conv_head", "_bn1")
    yield [state["_fc.weight"].T, state["_fc.bias"]]
