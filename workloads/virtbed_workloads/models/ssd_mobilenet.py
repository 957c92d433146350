"""SSD with MobileNetV2, MLPerf's small object detector: network, anchors, decoding of boxes.

Liu et al., "SSD" (arXiv 1512.02325), on Sandler et al., "MobileNetV2" (arXiv 1801.04381): six
feature maps of 19 x 19 to 1 x 1 cells, 1917 anchors, 90 classes and a background.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from virtbed_workloads.models.seeded import seed_weights

SIDE = 300
CLASSES = 91
CELLS = (19, 10, 5, 3, 2, 1)
SMALLEST, LARGEST = 0.2, 0.95  # sides of the anchors of the first and the last map
RATIOS = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)
# Half of MobileNetV2's layers are linear, and its untrained batch norms do not normalise. So
# kernels with the gain of a ReLU amplify the signal, and the heads are scaled down.
HEAD_SCALE = 0.25
PRIOR = 0.01  # likelihood of a class before training: Lin et al., arXiv 1708.02002
VARIANCES = (0.1, 0.1, 0.2, 0.2)  # scales of the offsets of centres and sizes


def build() -> keras.Model:
    """Build the network: float32 (n, 300, 300, 3) in [-1, 1] to (n, 1917, 4) and (n, 1917, 91).

    The outputs are the offsets from the anchors (y, x, height, width) and the classes' logits.
    """
    backbone = keras.applications.MobileNetV2(
        input_shape=(SIDE, SIDE, 3), include_top=False, weights=None
    )
    x = backbone.output
    maps = [backbone.get_layer("block_13_expand_relu").output, x]
    for narrow, wide in ((256, 512), (128, 256), (128, 256), (64, 128)):
        x = layers.Conv2D(narrow, 1, activation="relu6")(x)
        x = layers.Conv2D(wide, 3, strides=2, padding="same", activation="relu6")(x)
        maps.append(x)
    offsets: list[keras.KerasTensor] = []
    logits: list[keras.KerasTensor] = []
    for index, features in enumerate(maps):
        anchors = _per_cell(index)
        for heads, width in ((offsets, 4), (logits, CLASSES)):
            y = layers.Conv2D(anchors * width, 1, name=f"head_{index}_{width}")(features)
            heads.append(layers.Reshape((-1, width))(y))
    outputs = tuple(layers.Concatenate(axis=1)(parts) for parts in (offsets, logits))
    return keras.Model(backbone.input, outputs)


def seed(model: keras.Model, seed: int) -> None:
    """Set seeded weights, scaled so that about as many boxes are found as with trained ones."""
    seed_weights(model, seed)
    for layer in model.layers:
        if layer.name.startswith("head_"):
            layer.kernel.assign(layer.kernel * HEAD_SCALE)
            if layer.filters % CLASSES == 0:
                layer.bias.assign(layer.bias + np.log(PRIOR / (1 - PRIOR)))


def anchors() -> NDArray[np.float32]:
    """Return the anchors, (1917, 4): centre y, centre x, height, width, as parts of the side."""
    sizes = np.linspace(SMALLEST, LARGEST, len(CELLS))
    maps = []
    for index, cells in enumerate(CELLS):
        size = sizes[index]
        shapes = [(size / np.sqrt(r), size * np.sqrt(r)) for r in RATIOS[: _per_cell(index)]]
        if index:  # one more square, between this map's size and the next one's
            following = sizes[index + 1] if index + 1 < len(sizes) else 1.0
            shapes.append((np.sqrt(size * following),) * 2)
        else:
            shapes[0] = (0.1, 0.1)
        centres = (np.arange(cells) + 0.5) / cells
        y, x, shape = np.meshgrid(centres, centres, np.arange(len(shapes)), indexing="ij")
        sides = np.array(shapes)[shape.ravel()]
        maps.append(np.column_stack([y.ravel(), x.ravel(), sides]))
    return np.concatenate(maps).astype("float32")


def decode(offsets: NDArray[np.float32], priors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Decode offsets to boxes, (n, 4): top, left, bottom, right, as parts of the side, 0 to 1."""
    scaled = offsets * np.array(VARIANCES, "float32")
    centres = priors[:, :2] + scaled[:, :2] * priors[:, 2:]
    half = priors[:, 2:] * np.exp(scaled[:, 2:]) / 2
    return np.asarray(np.clip(np.hstack([centres - half, centres + half]), 0, 1))


def _per_cell(index: int) -> int:
    return 6 if index else 3
