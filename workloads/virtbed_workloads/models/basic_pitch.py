"""Basic Pitch, a network for note transcription, with its published weights.

Bittner et al., "A lightweight instrument-agnostic model for polyphonic note transcription and
multipitch estimation" (arXiv 2203.09893): a constant-Q transform, stacked with itself at a note's
harmonics, then three small stacks of convolutions. The package ``basic-pitch`` (Apache-2.0) has
it as a SavedModel that current TensorFlow no longer loads; this is the same network in Keras.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from virtbed_workloads.models.tensorflow_file import read_saved_model
from virtbed_workloads.packaged import package_file

RATE = 22050  # samples per second
WINDOW = 43844  # samples of a window
HOP = 256  # samples from frame to frame
FRAMES = 172  # frames of a window
LOWEST = 21  # MIDI number of the lowest note, A0
NOTES = 88
BINS = 3  # bins of the transform per semitone
OCTAVES, TRANSFORMED = 9, 309  # octaves of the transform, and the bins kept of all of them
HARMONICS = (0.5, 1, 2, 3, 4, 5, 6, 7)
TAPS = 256  # length of the transform's kernels and of the filter before each halving


class ConstantQ(layers.Layer):  # type: ignore[misc]
    """Power of a constant-Q transform: (n, samples, 1) to (n, frames, 309), lowest bin first.

    All octaves use the same kernels: after each octave the signal is filtered and halved
    (Schörkhuber and Klapuri, "Constant-Q transform toolbox for music processing", 2010).
    """

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Create the kernels (real and imaginary parts in one array) and the filter."""
        bins = 12 * BINS
        self.kernels = self.add_weight(shape=(TAPS, 1, 2 * bins), name="kernels", trainable=False)
        self.filter = self.add_weight(shape=(TAPS, 1, 1), name="filter", trainable=False)
        quality = 1 / (2 ** (1 / bins) - 1)
        lengths = np.ceil(quality * RATE / (27.5 * 2 ** (np.arange(TRANSFORMED) / bins)))
        self.lengths = lengths.astype("float32")

    def call(self, signal: Any) -> Any:
        """Transform octave by octave, from the highest to the lowest."""
        octaves: list[Any] = []
        edge = TAPS // 2
        for octave in range(OCTAVES):
            if octave:
                padded = ops.pad(signal, ((0, 0), (edge - 1, edge - 1), (0, 0)))
                signal = ops.conv(padded, self.filter, strides=2, padding="valid")
            padded = ops.pad(signal, ((0, 0), (edge, edge), (0, 0)), mode="reflect")
            both = ops.conv(padded, self.kernels, strides=HOP >> octave, padding="valid")
            real, imaginary = ops.split(both, 2, axis=-1)
            octaves.insert(0, ops.square(real) + ops.square(imaginary))
        return ops.concatenate(octaves, axis=-1)[..., -TRANSFORMED:] * self.lengths


class Loudness(layers.Layer):  # type: ignore[misc]
    """Decibels, scaled per window from 0 (quietest) to 1 (loudest)."""

    def call(self, power: Any) -> Any:
        """Scale (n, frames, bins)."""
        decibels = 10 * ops.log10(power + 1e-10)
        decibels -= ops.min(decibels, axis=(1, 2), keepdims=True)
        loudest = ops.max(decibels, axis=(1, 2), keepdims=True)
        return ops.where(loudest > 0, decibels / ops.where(loudest > 0, loudest, 1.0), 0.0)


class Harmonics(layers.Layer):  # type: ignore[misc]
    """Stack the bins of each harmonic as channels: (n, frames, 309, 1) to (n, frames, 264, 8)."""

    def call(self, x: Any) -> Any:
        """Shift by each harmonic's distance in bins; beyond the ends are zeros."""
        shifts = [round(12 * BINS * float(np.log2(harmonic))) for harmonic in HARMONICS]
        below, above = max(0, -min(shifts)), max(shifts)
        padded = ops.pad(x, ((0, 0), (0, 0), (below, above), (0, 0)))
        parts = [padded[:, :, below + s : below + s + NOTES * BINS] for s in shifts]
        return ops.concatenate(parts, axis=-1)


def build() -> keras.Model:
    """Build the network: float32 (n, 43844, 1) to the likelihoods of notes and of onsets.

    Both outputs are (n, 172, 88).
    """

    def convolution(x: Any, filters: int, kernel: tuple[int, int], name: str, **more: Any) -> Any:
        return layers.Conv2D(filters, kernel, padding="same", name=name, **more)(x)

    def normalised(x: Any, name: str) -> Any:
        return layers.BatchNormalization(name=name)(x)

    inputs = keras.Input((WINDOW, 1))
    x = Loudness()(ConstantQ(name="transform")(inputs))
    x = Harmonics()(normalised(ops.expand_dims(x, -1), "0"))
    contours = convolution(x, 8, (3, 13 * BINS), "1")
    contours = layers.ReLU()(normalised(contours, "2"))
    contours = convolution(contours, 1, (5, 5), "3", activation="sigmoid")
    notes = convolution(contours, 32, (7, 7), "4", strides=(1, BINS), activation="relu")
    notes = convolution(notes, 1, (7, 3), "7", activation="sigmoid")
    onsets = convolution(x, 32, (5, 5), "5", strides=(1, BINS))
    onsets = layers.ReLU()(normalised(onsets, "6"))
    onsets = layers.Concatenate()([notes, onsets])
    onsets = convolution(onsets, 1, (3, 3), "8", activation="sigmoid")
    return keras.Model(inputs, (notes[..., 0], onsets[..., 0]))


def trained() -> keras.Model:
    """Build the network with its published weights."""
    network = build()
    folder = package_file("basic_pitch", "saved_models/icassp_2022/nmp/saved_model.pb").parent
    values = read_saved_model(folder)
    for layer in network.layers:
        if layer.name == "transform":
            kernels = np.concatenate([values["Const"], values["Const_1"]])  # (72, 1, taps)
            lowpass: NDArray[Any] = values["Const_2"].reshape(TAPS, 1, 1)
            layer.set_weights([kernels.transpose(2, 1, 0), lowpass])
        elif layer.weights:
            parts = [variable.name for variable in layer.weights]
            layer.set_weights([values[f"layer_with_weights-{layer.name}/{p}"] for p in parts])
    return network
