"""virtbed, the controller: plans and carries out sweeps; the only package that runs Ansible."""
