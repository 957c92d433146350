"""Compiled calls of a Keras model under each backend, with a chosen processor and thread count.

This is the only module that is not backend-neutral. Keras takes its backend from ``KERAS_BACKEND``
(tensorflow, jax or torch); the image contains TensorFlow only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from numpy.typing import NDArray

from virtbed_workloads.contract import ApplicationError

Spec = tuple[tuple[int | None, ...], str]
"""Shape and dtype of one argument; None is a dimension that varies from call to call."""
Arrays = NDArray[Any] | tuple[NDArray[Any], ...]

_used: set[str] = set()


def compiled(function: Callable[..., Any], specs: Sequence[Spec]) -> Callable[..., Arrays]:
    """Compile a model, or a function of `keras.ops`, into a call from arrays to arrays.

    The call runs one traced graph, as a model server does; `predict` and eager calls cost more.

    Args:
        function: Takes one tensor per item of ``specs``; returns a tensor or a tuple of tensors.
        specs: Shapes and dtypes of the arguments. They fix the trace: only a new value of a
            dimension that is None may trace again.

    Returns:
        A function that takes NumPy arrays and returns when its results are in the host's memory.
    """
    return _COMPILERS[keras.backend.backend()](function, specs)


def require(processor: str, threads: int | None) -> None:
    """Set the processor and the size of the thread pools. Call it before the framework runs.

    Args:
        processor: ``cpu``, or ``gpu`` for the first GPU.
        threads: Size of both of TensorFlow's pools, or of torch's; None leaves the choice to the
            framework.

    Raises:
        ApplicationError: A GPU is requested and the framework finds none.
    """
    name = keras.backend.backend()
    found = len(_gpus())
    if processor == "gpu" and not found:
        raise ApplicationError(
            f"processor gpu requested, but {name} finds no GPU; a GPU, its driver and a {name} "
            "that is built for it are needed, or --processor cpu"
        )
    if name == "tensorflow":
        import tensorflow as tf

        tf.config.set_visible_devices(_gpus()[:1] if processor == "gpu" else [], "GPU")
        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
    elif name == "torch" and threads is not None:
        import torch

        torch.set_num_threads(threads)


def verify(processor: str) -> None:
    """Check that every call ran on the requested processor.

    Raises:
        ApplicationError: A call ran elsewhere. Without this check, a fallback to the CPU would be
            reported as a GPU's time.
    """
    if wrong := {kind for kind in _used if kind != processor}:
        raise ApplicationError(
            f"processor {processor} requested, but {keras.backend.backend()} ran the model on "
            f"{' and '.join(sorted(wrong))}; make a {processor} usable for it, or change "
            "--processor"
        )


def threads() -> tuple[int, int]:
    """Return the number of intra-op and of inter-op threads; 0 is the framework's own choice."""
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        threading = tf.config.threading
        return (
            threading.get_intra_op_parallelism_threads(),
            threading.get_inter_op_parallelism_threads(),
        )
    if name == "torch":
        import torch

        return torch.get_num_threads(), torch.get_num_interop_threads()
    return 0, 0


def frameworks() -> dict[str, str]:
    """Return the backend's name (``backend``), and the versions of Keras and of the backend."""
    name = keras.backend.backend()
    module = __import__(name)
    return {"backend": name, "keras": keras.__version__, name: module.__version__}


def _gpus() -> list[Any]:
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return list(tf.config.list_physical_devices("GPU"))
    if name == "jax":
        import jax

        return [device for device in jax.devices() if device.platform == "gpu"]
    import torch

    return list(range(torch.cuda.device_count()))


def _tensorflow(function: Callable[..., Any], specs: Sequence[Spec]) -> Callable[..., Arrays]:
    import tensorflow as tf

    signature = [tf.TensorSpec(shape, dtype) for shape, dtype in specs]
    traced = tf.function(function, input_signature=signature, autograph=False)

    def call(*arguments: NDArray[Any]) -> Arrays:
        outputs = traced(*map(tf.constant, arguments))
        if isinstance(outputs, tf.Tensor):
            _used.add("gpu" if "GPU:" in outputs.device else "cpu")
            array: NDArray[Any] = outputs.numpy()
            return array
        _used.update("gpu" if "GPU:" in output.device else "cpu" for output in outputs)
        return tuple(output.numpy() for output in outputs)

    return call


def _jax(function: Callable[..., Any], specs: Sequence[Spec]) -> Callable[..., Arrays]:
    import jax

    traced = jax.jit(function)

    def call(*arguments: NDArray[Any]) -> Arrays:
        outputs = traced(*arguments)
        leaves = [outputs] if isinstance(outputs, jax.Array) else outputs
        _used.update(device.platform for leaf in leaves for device in leaf.devices())
        if isinstance(outputs, jax.Array):
            return np.asarray(outputs)
        return tuple(np.asarray(output) for output in outputs)

    return call


def _torch(function: Callable[..., Any], specs: Sequence[Spec]) -> Callable[..., Arrays]:
    import torch

    def call(*arguments: NDArray[Any]) -> Arrays:
        with torch.inference_mode():
            outputs = function(*map(keras.ops.convert_to_tensor, arguments))
        leaves = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        _used.update("gpu" if leaf.is_cuda else "cpu" for leaf in leaves)
        if isinstance(outputs, torch.Tensor):
            return np.asarray(outputs.cpu())
        return tuple(np.asarray(output.cpu()) for output in outputs)

    return call


_COMPILERS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
