"""Compiled calls of models: one trace, and only on the requested processor."""

import keras
import numpy as np
import pytest

from virtbed_workloads import backend
from virtbed_workloads.contract import ApplicationError
from virtbed_workloads.models.seeded import seed_weights


def test_a_model_is_traced_once_for_all_shapes_of_its_spec() -> None:
    traces = []

    def double(x: object) -> object:
        traces.append(x)
        return keras.ops.multiply(x, 2.0)

    call = backend.compiled(double, [((None, 3), "float32")])
    for rows in (1, 2, 5):
        found = call(np.ones((rows, 3), "float32"))
        assert isinstance(found, np.ndarray)
        assert found.tolist() == [[2.0] * 3] * rows
    assert len(traces) == 1


def test_several_outputs_are_a_tuple_of_arrays() -> None:
    call = backend.compiled(lambda x: (x + 1, x * 3), [((2,), "float32")])
    first, second = call(np.float32([1, 2]))
    assert (first.tolist(), second.tolist()) == ([2.0, 3.0], [3.0, 6.0])


def test_a_gpu_is_refused_where_the_framework_finds_none() -> None:
    with pytest.raises(ApplicationError, match="gpu requested, but tensorflow finds no GPU"):
        backend.require("gpu", None)


def test_a_model_that_ran_on_the_cpu_fails_the_check_for_a_gpu() -> None:
    backend.compiled(lambda x: x + 1, [((1,), "float32")])(np.float32([1]))
    backend.verify("cpu")
    with pytest.raises(ApplicationError, match=r"gpu requested, but tensorflow ran .* on cpu"):
        backend.verify("gpu")


def test_seeded_weights_are_equal_for_equal_seeds() -> None:
    def made(seed: int) -> list[np.ndarray]:
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.DepthwiseConv2D(3),
                keras.layers.BatchNormalization(),
                keras.layers.Conv2D(4, 3),
                keras.layers.Flatten(),
                keras.layers.Dense(2),
            ]
        )
        seed_weights(model, seed)
        return model.get_weights()

    first, again, other = made(1), made(1), made(2)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))
