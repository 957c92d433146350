"""oneDNN's line about its instruction set is captured; output of other libraries is passed on."""

import os

import pytest

from virtbed_workloads import onednn

PRINTED = b"""onednn_verbose,v1,info,oneDNN v3.7.3 (commit N/A)
onednn_verbose,v1,info,cpu,runtime:threadpool,nthr:2
onednn_verbose,v1,info,cpu,isa:Intel AVX-512 with Intel DL Boost
"""


def test_the_instruction_set_is_captured(capfd: pytest.CaptureFixture[str]) -> None:
    with onednn.capture() as chosen:
        os.write(1, PRINTED + b"of another library\n")
    os.write(1, b"later\n")
    assert chosen.isa == "Intel AVX-512 with Intel DL Boost"
    assert capfd.readouterr().out == "of another library\nlater\n"


def test_an_application_without_onednn_has_no_instruction_set() -> None:
    with onednn.capture() as chosen:
        pass
    assert chosen.isa is None


def test_an_error_during_capture_restores_standard_output(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(RuntimeError), onednn.capture():
        raise RuntimeError
    os.write(1, b"later\n")
    assert capfd.readouterr().out == "later\n"
