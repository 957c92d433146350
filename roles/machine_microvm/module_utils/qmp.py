"""Client of the QEMU Machine Protocol (QMP): one JSON object per line over a Unix socket.

Debian 12 has no package of PyPI's qemu.qmp; the protocol's synchronous part is small enough.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any


class QmpError(Exception):
    """The monitor does not answer, or refused a command."""


class Monitor:
    """A connection to a running QEMU's monitor, which serves one connection at a time.

    Attributes:
        pid: Id of QEMU's process.

    Args:
        path: Path of the socket, at most 107 bytes long.
        timeout_s: Seconds to wait for QEMU to make the socket, and for each answer.
        ended: Function that returns whether QEMU has ended, so that waiting is useless.
    """

    def __init__(
        self, path: str, timeout_s: float = 30.0, ended: Callable[[], bool] = lambda: False
    ) -> None:
        self._path = path
        deadline = time.monotonic() + timeout_s
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(timeout_s)
            try:
                self._socket.connect(path)
                break
            except OSError as error:
                self._socket.close()
                if ended():
                    raise QmpError("QEMU has ended") from error
                if time.monotonic() > deadline:
                    raise QmpError(f"{path}: {error}") from error
                time.sleep(0.05)
        peer = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid: int = struct.unpack("3i", peer)[0]
        self._lines = self._socket.makefile("rw", encoding="utf-8")
        self._answer()  # the greeting
        self.execute("qmp_capabilities")

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        """Execute a command and return QEMU's answer.

        Raises:
            QmpError: QEMU refused it, ended, or did not answer in time.
        """
        try:
            self._lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            self._lines.flush()
        except OSError as error:
            raise QmpError(f"{self._path}: {command}: {error}") from error
        answer = self._answer()
        if "return" not in answer:
            raise QmpError(f"{self._path}: {command}: {answer['error']['desc']}")
        return answer["return"]

    def _answer(self) -> dict[str, Any]:
        """Return the next message that is not an event."""
        while True:
            try:
                line = self._lines.readline()
            except OSError as error:
                raise QmpError(f"{self._path}: no answer: {error}") from error
            if not line:
                raise QmpError(f"{self._path}: QEMU closed the connection")
            answer: dict[str, Any] = json.loads(line)
            if "event" not in answer:
                return answer
