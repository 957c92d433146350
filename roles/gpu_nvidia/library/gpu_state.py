#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""State of a GPU, read by NVML on the machine that has it."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.virtbed_contract import nvml
from ansible.module_utils.virtbed_contract.codec import encode
from ansible.module_utils.virtbed_contract.remedies import setup

DOCUMENTATION = r"""
module: gpu_state
short_description: Read the state of an NVIDIA GPU
description:
  - Reads identity, link, clocks, power, errors, modes and processes of one GPU from NVML, through
    NVIDIA's own Python bindings. Changes nothing.
  - A reading that NVML refuses is null, and C(unknown) holds the reason. Fails if the GPU does not
    answer.
author: virtbed
options:
  gpu:
    description: UUID or PCI address of the GPU.
    type: str
    required: true
  bindings:
    description:
      - File of the bindings, C(pynvml.py) of nvidia-ml-py. The image has it among its locked
        wheels, so the host needs no installation.
    type: path
    required: true
"""
EXAMPLES = r"""
- name: Read the state of the GPU
  gpu_state:
    gpu: GPU-11111111-2222-3333-4444-555555555555
    bindings: /opt/bindings/pynvml.py
  register: gpu
"""
RETURN = r"""
reading:
  description: The state, as the contract's document GpuState.
  returned: success
  type: dict
"""


def main() -> None:
    """Run the Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "gpu": {"type": "str", "required": True},
            "bindings": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["bindings"])
    try:
        loaded = nvml.bindings(path)
    except FileNotFoundError:
        module.fail_json(
            msg=f"gpu_state: no {path} found, NVIDIA's bindings needed; {setup()}: the image has "
            "them"
        )
    try:
        with nvml.opened(loaded):
            state = nvml.state(loaded, module.params["gpu"])
    except nvml.NvmlError as error:
        module.fail_json(msg=f"gpu_state: {error}", kind=error.kind)
    module.exit_json(changed=False, reading=encode(state))


if __name__ == "__main__":
    main()
