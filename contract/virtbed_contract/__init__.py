"""What the controller, the Ansible modules and the image agree on.

Standard library only, Python 3.9 or newer, relative imports only: the controller and the image
import it as a package, and Ansible ships it to managed hosts (``ansible.cfg: module_utils``).
"""

__version__ = "0.1.0"
