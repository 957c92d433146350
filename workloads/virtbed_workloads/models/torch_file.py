"""Reader of PyTorch's legacy weight files that needs no PyTorch.

A legacy ``.pth`` (``torch.save`` before 1.6) is five pickles followed by raw storages: the magic
number, the protocol version, the system's sizes, the state dict and the storages' keys in order.
A pickle can name any function to call; this reader allows only the four that weights need.
"""

from __future__ import annotations

import pickle  # nosec B403 # read only by an unpickler that allows four names
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
_DTYPES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


class _Storage:
    """A flat buffer that the pickle refers to; its bytes follow the pickles."""

    def __init__(self, dtype: str, size: int) -> None:
        self.values: NDArray[Any] = np.zeros(size, dtype=dtype)


class _Tensor:
    """A view of a storage, described by offset, shape and strides until the bytes are read."""

    def __init__(
        self,
        storage: _Storage,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        *_ignored: object,  # requires_grad and backward hooks, unused at inference
    ) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self) -> NDArray[Any]:
        """Return a copy of the view.

        Raises:
            pickle.UnpicklingError: The view reaches outside its storage.
        """
        reach = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        values = self.storage.values
        inside = all(s >= 0 for s in self.strides) and all(n > 0 for n in self.shape)
        if not inside or not 0 <= self.offset <= values.size - reach - 1:
            raise pickle.UnpicklingError("a tensor reaches outside its storage")
        strides = [s * values.itemsize for s in self.strides]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides)
        copied: NDArray[Any] = view.copy()
        return copied


class _Restricted(pickle.Unpickler):
    """An unpickler that calls only the constructors of weights."""

    def __init__(self, file: IO[bytes], storages: dict[str, _Storage]) -> None:
        super().__init__(file)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Callable[..., object] | str] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
            # Storage types appear as classes, but only as part of a persistent id.
            ("torch", "FloatStorage"): "FloatStorage",
            ("torch", "LongStorage"): "LongStorage",
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(
                f"the weight file calls {module}.{name}; weights need only "
                + ", ".join(f"{m}.{n}" for m, n in allowed)
            )
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        _tag, kind, key, _device, size, view = pid
        if view is not None or kind not in _DTYPES:
            raise pickle.UnpicklingError(f"unsupported storage {kind!r} (view {view!r})")
        return self._storages.setdefault(key, _Storage(_DTYPES[kind], size))


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """Read a legacy PyTorch state dict.

    Returns:
        Parameter name to array, in PyTorch's shape (convolutions are OIHW).

    Raises:
        pickle.UnpicklingError: The file is not a legacy state dict, is truncated, or contains
            anything but tensors.
    """
    storages: dict[str, _Storage] = {}
    with path.open("rb") as file:

        def next_pickle() -> Any:
            return _Restricted(file, storages).load()

        if next_pickle() != MAGIC or next_pickle() != PROTOCOL:
            raise pickle.UnpicklingError(f"{path.name} is not a legacy PyTorch file")
        next_pickle()  # sizes of C types on the writing machine; unused, the formats are fixed
        state = next_pickle()
        for key in next_pickle():
            storage = storages[key]
            count = int.from_bytes(file.read(8), "little")
            raw = file.read(storage.values.nbytes)
            if count != storage.values.size or len(raw) != storage.values.nbytes:
                raise pickle.UnpicklingError(f"{path.name} is cut short in storage {key}")
            storage.values[:] = np.frombuffer(raw, storage.values.dtype)
    if not all(isinstance(value, _Tensor) for value in state.values()):
        raise pickle.UnpicklingError(f"{path.name} holds more than tensors")
    return {name: tensor.array() for name, tensor in state.items()}
