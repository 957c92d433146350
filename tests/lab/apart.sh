#!/bin/sh -eu
# Runs a command as a controller of its own, apart from the sweeps and playbooks on this machine: its
# lock, keys and Ansible's files are in a namespace. It is killed together with its parent. Needs root.
export VIRTBED_APART=1
mkdir -p ~/.ansible
exec setpriv --pdeathsig=KILL unshare --mount --propagation private sh -euc '
  mount -t tmpfs -o mode=0755 tmpfs /run
  mount -t tmpfs -o mode=0700 tmpfs ~/.ansible
  exec "$@"' sh "$@"
