"""Random weights that are the same on every machine and with every release of a framework.

Kernels have zero mean over each unit's inputs and a variance that keeps the signal's variance
through a ReLU (Brock et al., "Characterizing signal propagation", arXiv 2101.08692). Without the
zero mean a deep network gives the same output for every input, so its answers would check nothing.
"""

from __future__ import annotations

import keras
import numpy as np

GAIN = np.sqrt(2 / (1 - 1 / np.pi))  # gain of a ReLU for kernels of zero mean


def seed_weights(model: keras.Model, seed: int) -> None:
    """Set kernels and embeddings to random values, scales to 1 and offsets to 0, in place.

    The values come from NumPy's generator, because its streams do not change with a framework's
    release.

    Args:
        model: Any built Keras model.
        seed: Seed of one stream for the whole model, in the order of its weights.
    """
    generator = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False, recursive=True):
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            shape = tuple(variable.shape)
            if variable.name in ("gamma", "moving_variance"):
                values = np.ones(shape)
            elif variable.name == "embeddings":
                values = 0.02 * generator.standard_normal(shape)
            elif len(shape) > 1 and variable.name not in ("bias", "beta"):
                depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                inputs = (0, 1) if depthwise else tuple(range(len(shape) - 1))
                values = generator.standard_normal(shape)
                values -= values.mean(axis=inputs, keepdims=True)
                values *= GAIN / np.sqrt(np.prod([shape[axis] for axis in inputs]))
            else:
                values = np.zeros(shape)
            variable.assign(values.astype("float32"))
