"""A client of QEMU's monitor (QMP), to take snapshots and to end QEMU."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from virtbed.lab import LabError

_WAIT_S = 300  # a snapshot writes the server's memory


class Monitor:
    """A connection to the QMP socket of a server."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_WAIT_S)
        try:
            self._socket.connect(str(path))
            self._file = self._socket.makefile("rw", encoding="utf-8")
            self._file.readline()  # the greeting
            self.ask("qmp_capabilities")
        except (OSError, ValueError) as error:
            self._socket.close()
            raise LabError(f"QEMU's monitor {path} does not answer: {error}") from error

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its answer; events that arrive before it are ignored.

        Raises:
            LabError: QEMU refuses it.
            OSError: QEMU has ended, or does not answer in time.
        """
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while line := self._file.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise LabError(f"QEMU refuses {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise ConnectionError(f"QEMU ended before it answered {command}")

    def human(self, line: str) -> None:
        """Run a command of the human monitor, which prints nothing on success.

        Raises:
            LabError: it printed an error.
        """
        if output := self.ask("human-monitor-command", **{"command-line": line}).strip():
            raise LabError(f"QEMU refuses {line}: {output}")
