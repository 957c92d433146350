# Changes each instance once, as soon as it runs. sweeps.py replaces CASES with the changes by
# instance; in them, $id is the container, and $scope is systemd's unit of the container or guest.
# Only one instance exists at a time. A container's name is queried once, because repeated queries
# to Docker would slow the sweep down.
export LIBVIRT_DEFAULT_URI=qemu:///system
done=/run/sabotaged-
change() {
  case $1 in
    CASES
    *) false ;;
  esac && touch "$done$1"
}
while sleep 0.5; do
  for group in /sys/fs/cgroup/system.slice/docker-*.scope; do
    grep -qx sleep "/proc/$(head -n 1 "$group/cgroup.procs")/comm" || continue
    scope=$(basename "$group") id=${scope#docker-} id=${id%.scope}
    test "$id" = "$known" || name=$(docker container inspect --format '{{.Name}}' "$id") || continue
    known=$id name=${name#/virtbed-}
    test -e "$done$name" || change "$name"
  done
  for file in /run/libvirt/qemu/virtbed-*.pid; do
    name=$(basename "$file" .pid) name=${name#virtbed-}
    test -e "$file" && ! test -e "$done$name" || continue
    scope=$(systemctl list-units --plain --no-legend 'machine-qemu*' | cut -d ' ' -f 1)
    test -n "$scope" && change "$name"
  done
done > /run/sabotage.log 2>&1
