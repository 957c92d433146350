# Prints facts about a server, one per line, to compare it before its set-up and after its teardown:
# names and kinds of files, and the content of those in /etc and /usr/local. Files that daemons write
# while they run are left out.
export LC_ALL=C
dpkg-query -W -f 'package ${Package} ${db:Status-Abbrev}\n'
apt-mark showhold | sed 's/^/held /'
systemctl list-unit-files --no-legend --plain | awk '{print "unit-file " $1 " " $2}'
systemctl list-units --all --state=active,failed --no-legend --plain \
  --type=service,socket,timer,slice,mount,swap,path | awk '{print "unit " $1 " " $3}'
find / -xdev \( -path /proc -o -path /sys -o -path /tmp -o -path '/var/tmp/systemd-private-*' \
  -o -path /var/log/journal -o -path /run/log \) -prune -o -printf 'file %p %y\n' 2>/dev/null
find /run -xdev -not -path '/run/systemd/*' -not -path '/run/user/*' -not -path '/run/udev/*' \
  -printf 'file %p %y\n' 2>/dev/null
find /sys/fs/cgroup -type d -printf 'group %p\n' 2>/dev/null
# Only limits that limit something: every group has these files once a controller is enabled.
find /sys/fs/cgroup \( -name cpuset.cpus -o -name cpuset.mems -o -name cpu.max \) 2>/dev/null |
  while read -r file; do
    value=$(cat "$file" 2>/dev/null)
    case $value in '' | max*) ;; *) echo "limit $file $value" ;; esac
  done
sysctl --all 2>/dev/null | grep -Ev \
  'random\.|\.nr_threads|dentry-state|inode-(nr|state)|file-nr|ns_last_pid|aio-nr|pty\.nr|cache_nr|nf_conntrack_count|sched_domain|keys' \
  | sed 's/^/sysctl /'
sed 's/^/module /; s/ .*//2' /proc/modules | awk '{print $1 " " $2}'
awk '{print "mount " $2 " " $3}' /proc/mounts
ip -br link | awk '{print "link " $1}'
stat -c 'device %n %U %G %a' /dev/kvm /dev/null 2>/dev/null
cat /sys/devices/system/cpu/online | sed 's/^/online /'
find /etc /usr/local -xdev -type f -exec sha256sum {} + 2>/dev/null | sed 's/^/content /'
