"""Two 3D U-Nets that label each voxel of a volume: deepbrain's, trained, and MLPerf's.

3D U-Net: Çiçek et al., arXiv 1606.06650. An encoder computes ever coarser and wider features, and
a decoder joins its features with the encoder's of the same resolution.
"""

from __future__ import annotations

import keras
from keras import layers

from virtbed_workloads.models.tensorflow_file import read_graph
from virtbed_workloads.packaged import package_file

STRIP_SIDE = 128


def strip() -> keras.Model:
    """Build deepbrain's network: float32 (n, 128, 128, 128, 1) in [0, 1] to likelihoods of brain.

    The output has the shape of the input. The weights are in the package ``deepbrain`` (MIT).
    """

    def convolution(x: keras.KerasTensor, filters: int, index: int) -> keras.KerasTensor:
        name = f"conv3d_{index}" if index else "conv3d"
        return layers.Conv3D(filters, 3, padding="same", activation="relu", name=name)(x)

    def enlarged(x: keras.KerasTensor, filters: int, index: int) -> keras.KerasTensor:
        name = f"conv3d_transpose_{index}" if index else "conv3d_transpose"
        return layers.Conv3DTranspose(
            filters, 3, strides=2, padding="same", use_bias=False, name=name
        )(x)

    inputs = x = keras.Input((STRIP_SIDE,) * 3 + (1,))
    maps = []
    for level, filters in enumerate((8, 16, 32)):
        x = convolution(convolution(x, filters, 2 * level), filters, 2 * level + 1)
        maps.append(x)
        x = layers.MaxPooling3D(2)(x)
    for level, filters in enumerate((32, 16, 8)):
        x = layers.Concatenate()([enlarged(x, filters, level), maps.pop()])
        x = convolution(x, filters, 6 + level)
    outputs = layers.Conv3D(1, 1, activation="sigmoid", name="conv3d_9")(x)
    return keras.Model(inputs, outputs)


def trained_strip() -> keras.Model:
    """Build deepbrain's network with its published weights."""
    network = strip()
    constants = read_graph(package_file("deepbrain", "models/graph.pb"))
    for layer in network.layers:
        if layer.weights:
            parts = ("kernel", "bias") if layer.use_bias else ("kernel",)
            layer.set_weights([constants[f"{layer.name}/{part}"] for part in parts])
    return network


def build(side: int, filters: tuple[int, ...], classes: int) -> keras.Model:
    """Build a network like MLPerf's: float32 (n, side, side, side, 1) to logits of each class.

    Two convolutions per level, each with instance normalisation, and strided convolutions between
    levels (Isensee et al., nnU-Net, arXiv 1809.10486).

    Args:
        side: Side of the window in voxels; a multiple of 2 ** (number of levels - 1).
        filters: Filters per level, finest first. MLPerf's are (32, 64, 128, 256, 320, 320).
        classes: Number of classes.

    Returns:
        A model whose output has shape (n, side, side, side, classes).
    """

    def block(x: keras.KerasTensor, width: int, strides: int = 1) -> keras.KerasTensor:
        for stride in (strides, 1):
            x = layers.Conv3D(width, 3, strides=stride, padding="same", use_bias=False)(x)
            x = layers.GroupNormalization(groups=-1)(x)
            x = layers.LeakyReLU(0.01)(x)
        return x

    inputs = keras.Input((side, side, side, 1))
    maps = [block(inputs, filters[0])]
    for width in filters[1:]:
        maps.append(block(maps[-1], width, strides=2))
    x = maps.pop()
    for width in reversed(filters[:-1]):
        x = layers.Conv3DTranspose(width, 2, strides=2, use_bias=False)(x)
        x = block(layers.Concatenate()([x, maps.pop()]), width)
    return keras.Model(inputs, layers.Conv3D(classes, 1)(x))
