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
  - Asks NVML, through NVIDIA's own bindings, for the identity, link, clocks, power, errors, modes
    and processes of one GPU. Changes nothing.
  - A reading that NVML refuses is null, and C(unknown) says why. A GPU that does not answer fails.
author: virtbed
options:
  gpu:
    description: UUID or PCI address of the GPU.
    type: str
    required: true
  bindings:
    description:
      - File of the bindings, C(pynvml.py) of nvidia-ml-py. The image has it among its locked
        wheels, so nothing need be installed on the host.
    type: path
    required: true
"""
EXAMPLES = r"""
- name: Read the state of the GPU
  gpu_state:
    gpu: GPU-11111111-2222-3333-4444-555555555555
    bindings: /opt/bindings/pynvml.py
  register: found
"""
RETURN = r"""
reading:
  description: The contract's GpuState.
  returned: success
  type: dict
"""


def main() -> None:
    """Answer as an Ansible module."""
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
            msg=f"gpu_state: no {path} found, NVIDIA's bindings needed; {setup()}, whose image has "
            "them"
        )
    try:
        with nvml.opened(loaded):
            found = nvml.state(loaded, module.params["gpu"])
    except nvml.NvmlError as error:
        module.fail_json(msg=f"gpu_state: {error}", kind=error.kind)
    module.exit_json(changed=False, reading=encode(found))


if __name__ == "__main__":
    main()
