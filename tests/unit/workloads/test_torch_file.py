"""Legacy PyTorch weight files, written here byte by byte and read without PyTorch."""

import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbed_workloads.models.torch_file import MAGIC, PROTOCOL, read_state_dict


class FloatStorage:
    """Stands for PyTorch's class of that name: only its name is pickled."""


class Rebuilt:
    """Pickles like a PyTorch tensor: a function's name, a storage's id, a view."""

    def __init__(self, key: str, size: int, offset: int, shape: Any, strides: Any) -> None:
        self.key, self.size = key, size
        self.view = (offset, shape, strides)

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2  # type: ignore[attr-defined]  # a stand-in
        return rebuild, (Handle(self.key, self.size), *self.view, False, OrderedDict())


class Handle:
    """A storage, pickled by persistent id."""

    def __init__(self, key: str, size: int) -> None:
        self.pid = ("storage", FloatStorage, key, "cpu", size, None)


class Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.pid if isinstance(value, Handle) else None


def _rebuild_tensor_v2() -> None: ...


@pytest.fixture(autouse=True, scope="module")
def torch_names() -> Any:
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    FloatStorage.__module__, _rebuild_tensor_v2.__module__ = "torch", "torch._utils"
    vars(torch)["FloatStorage"] = FloatStorage
    vars(utils)["_rebuild_tensor_v2"] = _rebuild_tensor_v2
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        yield


def write(path: Path, state: Any, storages: dict[str, list[float]], magic: int = MAGIC) -> Path:
    with path.open("wb") as file:
        for value in (magic, PROTOCOL, {}, state, list(storages)):
            Pickler(file, protocol=2).dump(value)
        for values in storages.values():
            file.write(len(values).to_bytes(8, "little"))
            file.write(np.array(values, "<f4").tobytes())
    return path


@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=6, max_size=6))
def test_a_written_file_is_read_with_shapes_and_strides(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    state = OrderedDict(
        whole=Rebuilt("7", 6, 0, (2, 3), (3, 1)),
        turned=Rebuilt("7", 6, 0, (3, 2), (1, 3)),
        last=Rebuilt("7", 6, 5, (1,), (1,)),
    )
    read = read_state_dict(write(tmp_path_factory.mktemp("w") / "w.pth", state, {"7": values}))
    expected = np.array(values, "float32").reshape(2, 3)
    np.testing.assert_array_equal(read["whole"], expected)
    np.testing.assert_array_equal(read["turned"], expected.T)
    np.testing.assert_array_equal(read["last"], expected[1, 2:])


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)

    def __init__(self, target: Path) -> None:
        self.target = target


def test_a_file_that_calls_a_function_is_refused(tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = write(tmp_path / "w.pth", OrderedDict(w=Malicious(made)), {})
    with pytest.raises(pickle.UnpicklingError, match=r"calls posix\.mkdir"):
        read_state_dict(path)
    assert not made.exists()


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (7,), (1,)), (6, (1,), (1,)), (-1, (1,), (1,)), (3, (2,), (-1,)), (0, (2,), (2**60,))],
)
def test_a_view_outside_its_storage_is_refused(
    tmp_path: Path, offset: int, shape: Any, strides: Any
) -> None:
    state = OrderedDict(w=Rebuilt("0", 6, offset, shape, strides))
    with pytest.raises(pickle.UnpicklingError, match="outside its storage"):
        read_state_dict(write(tmp_path / "w.pth", state, {"0": [0.0] * 6}))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    state = OrderedDict(w=Rebuilt("0", 6, 0, (6,), (1,)))
    path = write(tmp_path / "w.pth", state, {"0": [1.0] * 6})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(pickle.UnpicklingError, match="cut short"):
        read_state_dict(path)


def test_other_formats_and_other_contents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(pickle.UnpicklingError, match="not a legacy"):
        read_state_dict(write(tmp_path / "a.pth", OrderedDict(), {}, magic=1))
    with pytest.raises(pickle.UnpicklingError, match="more than tensors"):
        read_state_dict(write(tmp_path / "b.pth", OrderedDict(w=1), {}))
