"""Documents, registries and kernel readers shared by controller, Ansible modules and image.

The controller and the image import it as a package, and Ansible ships it to managed hosts
(``ansible.cfg: module_utils``). So it needs only Python 3.9 and the standard library, and its own
imports are relative.
"""

__version__ = "0.1.0"
