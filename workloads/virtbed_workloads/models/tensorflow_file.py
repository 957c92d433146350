"""Reader of constants and variables in old TensorFlow files that no longer load as a model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray


def read_graph(path: Path) -> dict[str, NDArray[Any]]:
    """Read the constants of a frozen graph (a GraphDef): node name to array.

    Raises:
        OSError: The file cannot be read.
        google.protobuf.message.DecodeError: The file is not a GraphDef.
    """
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(path.read_bytes())
    return _constants(graph.node)


def read_saved_model(folder: Path) -> dict[str, NDArray[Any]]:
    """Read a SavedModel's variables (by key) and the constants of its outer graph (by node name).

    Raises:
        OSError: A file cannot be read.
        google.protobuf.message.DecodeError: The file is not a SavedModel.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    checkpoint = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    variables = {
        key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): checkpoint.get_tensor(key)
        for key in checkpoint.get_variable_to_shape_map()
    }
    return variables | _constants(saved.meta_graphs[0].graph_def.node)


def _constants(nodes: Iterable[Any]) -> dict[str, NDArray[Any]]:
    return {
        node.name: tf.make_ndarray(node.attr["value"].tensor)
        for node in nodes
        if node.op == "Const"
    }
