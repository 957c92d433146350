# Causes each fault once, a second after the application of its instance has started. sweeps.py
# replaces CASES with the faults by instance.
done=/run/fault-
cause() {
  case $1 in
    CASES
  esac
}
while sleep 0.3; do
  for process in $(pgrep -f '[v]irtbed_workloads null'); do
    name=$(tr '\0' '\n' < "/proc/$process/environ" | sed -n 's/^VIRTBED_INSTANCE=//p')
    test -n "$name" && ! test -e "$done$name" || continue
    touch "$done$name"
    sleep 1
    cause "$name"
  done
done > /run/faults.log 2>&1
