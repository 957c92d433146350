#!/usr/bin/python3
"""Digest of a tree's canonical tar, and a list of its contents."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: image_contents
short_description: Compute the digest of a tree's tar, and list the tar's contents
description:
  - Reads the stream once. The list has one line of JSON per file, in the order of the stream, and a
    last line with the digest and the number of files, so that two images can be compared without
    their trees.
options:
  command:
    description: Shell command that writes the tar to standard output.
    type: str
    required: true
  chdir:
    description: Directory to run it in.
    type: path
    required: true
  dest:
    description: File for the list, compressed by gzip.
    type: path
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Compute the digest
  image_contents:
    command: tar --sort=name -cf - rootfs
    chdir: /var/lib/virtbed/images/building
    dest: /var/lib/virtbed/images/building/contents.jsonl.gz
"""
RETURN = r"""
digest:
  description: SHA-256 of the stream, as C(sha256:…).
  returned: always
  type: str
files:
  description: Number of files, folders and links in it.
  returned: always
  type: int
"""
_TYPES = {
    tarfile.REGTYPE: "file",
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.DIRTYPE: "folder",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "FIFO",
}
_CHUNK = 2**20
_MAX_ERROR_CHARACTERS = 2000


class Digested:
    """A readable stream that computes the SHA-256 of everything read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes."""
        data = self._stream.read(size)
        self.digest.update(data)
        return data


def entries(stream: Digested) -> Iterator[dict[str, Any]]:
    """Yield one entry per member of a tar, and read the stream to its end."""
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            yield _entry(archive, member)
    while stream.read(_CHUNK):  # padding, which belongs to the digest
        pass


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "path": member.name,
        "type": _TYPES.get(member.type, "other"),
        "mode": f"{member.mode:04o}",
        "owner": f"{member.uid}:{member.gid}",
    }
    attributes = {
        key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")
    }
    if attributes:
        text = json.dumps(attributes, sort_keys=True).encode("utf-8", "surrogateescape")
        entry["attributes"] = hashlib.sha256(text).hexdigest()
    if member.linkname:
        entry["target"] = member.linkname
    if member.ischr() or member.isblk():
        entry["device"] = f"{member.devmajor}:{member.devminor}"
    content = archive.extractfile(member) if member.isreg() else None
    if content:
        digest = hashlib.sha256()
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
        entry |= {"size": member.size, "sha256": digest.hexdigest()}
    # Frees memory: members that have been read are not needed again.
    archive.members = []  # type: ignore[attr-defined]
    return entry


def listed(command: str, chdir: str, dest: str) -> tuple[str, int]:
    """Run a command that writes a tar, and write the list of the tar's contents to `dest`.

    Returns:
        The tar's digest, and the number of its members.

    Raises:
        RuntimeError: The command failed, or its output is not a tar.
    """
    count = 0
    words = ["/bin/sh", "-c", command]
    # Standard error goes to a file: a full pipe that is not read would block the command.
    with (
        TemporaryFile() as errors,
        subprocess.Popen(words, cwd=chdir, stdout=subprocess.PIPE, stderr=errors) as tar,
        Path(dest).open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as file,
    ):
        assert tar.stdout is not None  # nosec B101 # for mypy
        stream = Digested(tar.stdout)
        try:
            for entry in entries(stream):
                file.write((json.dumps(entry) + "\n").encode("ascii"))
                count += 1
            problem = ""
        except tarfile.TarError as error:
            problem = str(error)
        tar.stdout.close()  # if the output is no tar, the command would wait for a reader
        tar.wait()
        errors.seek(0)
        stderr = errors.read(_MAX_ERROR_CHARACTERS).decode(errors="replace").strip()
        digest = f"sha256:{stream.digest.hexdigest()}"
        # Last, so that a list that is cut or belongs to another tree can be recognised.
        file.write((json.dumps({"digest": digest, "files": count}) + "\n").encode("ascii"))
    if tar.returncode or problem:
        raise RuntimeError(f"{command} ended with {tar.returncode}: {stderr or problem}")
    return digest, count


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "command": {"type": "str", "required": True},
            "chdir": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
        }
    )
    try:
        digest, files = listed(
            module.params["command"], module.params["chdir"], module.params["dest"]
        )
    except (OSError, RuntimeError) as error:
        module.fail_json(msg=f"image_contents: {error}")
    module.exit_json(changed=True, digest=digest, files=files)


if __name__ == "__main__":
    main()
