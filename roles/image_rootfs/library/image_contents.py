#!/usr/bin/python3
"""The digest of a tree's canonical tar, and a list of what it holds."""

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
short_description: Work out the digest of a tree's tar, and list what the tar holds
description:
  - Reads the stream once. The list has a line of JSON per file, in the order of the stream, and one
    of the digest and their number, so that two images can be compared without their trees.
options:
  command:
    description: A shell command that writes the tar.
    type: str
    required: true
  chdir:
    description: Where it runs.
    type: path
    required: true
  dest:
    description: The list to write, compressed by gzip.
    type: path
    required: true
author: virtbed
"""
EXAMPLES = r"""
- name: Work out the digest
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
  description: How many files, folders and links it holds.
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
_MOST_SAID = 2000


class Digested:
    """A stream that digests all that is read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read up to so many bytes."""
        found = self._stream.read(size)
        self.digest.update(found)
        return found


def entries(stream: Digested) -> Iterator[dict[str, Any]]:
    """Yield what a tar holds, an entry per member, and read the stream to its end."""
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
        for member in archive:
            yield _entry(archive, member)
    while stream.read(_CHUNK):  # padding, which is digested, too
        pass


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    found: dict[str, Any] = {
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
        found["attributes"] = hashlib.sha256(text).hexdigest()
    if member.linkname:
        found["target"] = member.linkname
    if member.ischr() or member.isblk():
        found["device"] = f"{member.devmajor}:{member.devminor}"
    content = archive.extractfile(member) if member.isreg() else None
    if content:
        digest = hashlib.sha256()
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
        found |= {"size": member.size, "sha256": digest.hexdigest()}
    # The members of a stream that have been read are not needed again.
    archive.members = []  # type: ignore[attr-defined]
    return found


def listed(command: str, chdir: str, dest: str) -> tuple[str, int]:
    """Write the list of the tar that a command writes; return its digest and the list's length.

    Raises:
        RuntimeError: the command failed; the message is what it said.
    """
    count = 0
    words = ["/bin/sh", "-c", command]
    # What it says goes into a file: of a full pipe that nobody reads it would wait for ever.
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
            said = ""
        except tarfile.TarError as error:
            said = str(error)
        tar.stdout.close()  # else it would wait for a reader, were it no tar
        tar.wait()
        errors.seek(0)
        complaint = errors.read(_MOST_SAID).decode(errors="replace").strip()
        digest = f"sha256:{stream.digest.hexdigest()}"
        # Last, so that a list that was cut or is another tree's is known as such.
        file.write((json.dumps({"digest": digest, "files": count}) + "\n").encode("ascii"))
    if tar.returncode or said:
        raise RuntimeError(f"{command} ended with {tar.returncode}: {complaint or said}")
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
