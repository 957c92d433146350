"""virtbed: plans and carries out sweeps over execution platforms; sole user of ansible-runner."""
