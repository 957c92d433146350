"""The instruction set that oneDNN chose its kernels for, read at no cost to requests.

oneDNN prints it once to standard output when its trace is enabled. The trace is limited to
recurrent cells, which no application here has, so that no request is traced. The reading shows a
guest's CPU model that hides an instruction set, or an environment variable that limits it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Read by oneDNN at its first use. https://uxlfoundation.github.io/oneDNN/dev_guide_verbose.html
os.environ.setdefault("ONEDNN_VERBOSE", "profile_exec,filter=rnn")
_PREFIX = b"onednn_verbose,v1,info,cpu,isa:"


@dataclass
class Chosen:
    """The instruction set as oneDNN prints it; None until it has printed one."""

    isa: str | None = None


@contextmanager
def capture() -> Iterator[Chosen]:
    """Capture descriptor 1 during the first inference; pass on the lines of other libraries.

    The yielded object's ``isa`` is set when the block ends.
    """
    chosen = Chosen()
    output, buffer = os.dup(1), os.memfd_create("onednn")
    os.dup2(buffer, 1)
    try:
        yield chosen
    finally:
        os.dup2(output, 1)
        os.close(output)
        with os.fdopen(buffer, "rb") as file:
            file.seek(0)
            for line in file:
                if line.startswith(_PREFIX):
                    chosen.isa = line.removeprefix(_PREFIX).decode().strip()
                elif not line.startswith(b"onednn_verbose,"):
                    os.write(1, line)  # from another library
