"""What oneDNN says of itself is heard, and what others print goes where it was to go."""

import os

import pytest

from virtbed_workloads import onednn

SAID = b"""onednn_verbose,v1,info,oneDNN v3.7.3 (commit N/A)
onednn_verbose,v1,info,cpu,runtime:threadpool,nthr:2
onednn_verbose,v1,info,cpu,isa:Intel AVX-512 with Intel DL Boost
"""


def test_the_instruction_set_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    with onednn.heard() as chosen:
        os.write(1, SAID + b"of another library\n")
    os.write(1, b"later\n")
    assert chosen.isa == "Intel AVX-512 with Intel DL Boost"
    assert capfd.readouterr().out == "of another library\nlater\n"


def test_an_application_without_onednn_hears_nothing() -> None:
    with onednn.heard() as chosen:
        pass
    assert chosen.isa is None


def test_an_error_under_way_leaves_the_output_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), onednn.heard():
        raise RuntimeError
    os.write(1, b"later\n")
    assert capfd.readouterr().out == "later\n"
