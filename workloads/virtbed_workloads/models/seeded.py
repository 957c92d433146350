"""Knows how to fill a network with random weights that are the same everywhere and for ever."""

from __future__ import annotations

import keras
import numpy as np


def seed_weights(model: keras.Model, seed: int) -> None:
    """Give each kernel and embedding He-normal values, each scale 1 and each offset 0, in place.

    NumPy's generator makes them: its streams do not change with a framework's release.

    Args:
        model: Any Keras model, built.
        seed: Of the generator; one stream for the whole model, in the order of its weights.
    """
    generator = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False, recursive=True):
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            shape = tuple(variable.shape)
            if variable.name in ("gamma", "moving_variance"):
                values = np.ones(shape, "float32")
            elif variable.name == "embeddings":
                values = 0.02 * generator.standard_normal(shape, "float32")
            elif len(shape) > 1 and variable.name not in ("bias", "beta"):
                depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
                values = generator.standard_normal(shape, "float32") * np.sqrt(2.0 / fan_in)
            else:
                values = np.zeros(shape, "float32")
            variable.assign(values.astype("float32"))
