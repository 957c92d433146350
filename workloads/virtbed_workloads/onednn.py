"""The instruction set that oneDNN chose its kernels for, at no cost to requests.

oneDNN prints it once, on standard output, if it is asked to trace. It is asked to trace recurrent
cells alone, which no application here has, so that it prints nothing of any request. A processor
model that hides an instruction set, or an environment that limits it, shows here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Read by oneDNN at its first use. https://uxlfoundation.github.io/oneDNN/dev_guide_verbose.html
os.environ.setdefault("ONEDNN_VERBOSE", "profile_exec,filter=rnn")
_SAID = b"onednn_verbose,v1,info,cpu,isa:"


@dataclass
class Chosen:
    """What oneDNN printed; `isa` in its words, None as long as it has not printed anything."""

    isa: str | None = None


@contextmanager
def heard() -> Iterator[Chosen]:
    """Listen to descriptor 1 while the first request is inferred."""
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
                if line.startswith(_SAID):
                    chosen.isa = line.removeprefix(_SAID).decode().strip()
                elif not line.startswith(b"onednn_verbose,"):
                    os.write(1, line)  # of another library
