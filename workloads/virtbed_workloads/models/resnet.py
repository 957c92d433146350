"""ResNet-50 v1.5, the image classifier of MLPerf, in Keras.

He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385). Version 1.5 has the
stride in a block's 3x3 convolution, not in its first 1x1. At inference a batch norm is an affine
map of the convolution before it. So convolutions have a bias and no norm follows: the same work.
"""

from __future__ import annotations

import keras

from virtbed_workloads.models.seeded import seed_weights

SIDE = 224
CLASSES = 1001  # ImageNet's 1000 and a background, as in MLPerf's model
STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))  # blocks, filters within a block
EXPANSION = 4
# Each of the sixteen blocks adds a branch to its input. Without a norm, branches of the input's
# scale would double the variance in each block.
BRANCH_SCALE = 0.25


def build() -> keras.Model:
    """Build the network: float32 (n, 224, 224, 3) to logits (n, 1001)."""
    layers = keras.layers

    def convolution(
        x: keras.KerasTensor, filters: int, kernel: int, stride: int = 1, name: str | None = None
    ) -> keras.KerasTensor:
        return layers.Conv2D(filters, kernel, strides=stride, padding="same", name=name)(x)

    def relu(x: keras.KerasTensor) -> keras.KerasTensor:
        return layers.Activation("relu")(x)

    inputs = keras.Input((SIDE, SIDE, 3))
    x = relu(convolution(inputs, 64, 7, 2))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    for stage, (blocks, filters) in enumerate(STAGES):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            skip = x if block else convolution(x, filters * EXPANSION, 1, stride)
            branch = relu(convolution(x, filters, 1))
            branch = relu(convolution(branch, filters, 3, stride))
            branch = convolution(branch, filters * EXPANSION, 1, name=f"branch_{stage}_{block}")
            x = relu(layers.Add()([branch, skip]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def seed(model: keras.Model, seed: int) -> None:
    """Set seeded weights, with branches small enough for finite outputs."""
    seed_weights(model, seed)
    for layer in model.layers:
        if layer.name.startswith("branch_"):
            layer.kernel.assign(layer.kernel * BRANCH_SCALE)
