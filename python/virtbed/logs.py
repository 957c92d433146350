"""Ansible's logs, kept with the sweep: the newest 20, each of at most 8 MiB."""

from __future__ import annotations

from pathlib import Path

FILES = 20
MAX_BYTES = 8 * 2**20


def tail(log: Path, most: int) -> bytes:
    """Return the last `most` bytes of a file; nothing if it does not exist."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - most))
            return file.read(most)
    except FileNotFoundError:
        return b""


class Logs:
    """The logs of the playbooks that one call of virtbed runs.

    They are kept in memory until there is a results folder: a refused sweep does not create one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._pending: list[tuple[str, bytes]] = []

    def move_to(self, folder: Path) -> None:
        """Write the logs kept so far to a folder, and all later ones, too."""
        self._folder = folder
        for playbook, content in self._pending:
            self._write(folder, playbook, content)
        self._pending = []

    def keep(self, playbook: str, log: Path) -> None:
        """Keep a playbook's output; of a log above MAX_BYTES only the end."""
        try:
            with log.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - MAX_BYTES))
                content = file.read()
        except FileNotFoundError:  # Ansible was never started
            return
        if size > MAX_BYTES:
            content = f"[the first {size - MAX_BYTES} bytes were left out]\n".encode() + content
        if self._folder:
            self._write(self._folder, playbook, content)
        else:
            self._pending = [*self._pending, (playbook, content)][-FILES:]

    def _write(self, folder: Path, playbook: str, content: bytes) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        kept = sorted(folder.glob("[0-9][0-9][0-9][0-9]-*.log"))
        number = int(kept[-1].name[:4]) + 1 if kept else 1
        (folder / f"{number:04d}-{playbook}.log").write_bytes(content)
        for old in kept[: max(0, len(kept) + 1 - FILES)]:
            old.unlink(missing_ok=True)
