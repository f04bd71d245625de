#!/bin/sh
# Runs a command in the system beside this file (`system` leads to it), in which Vagrant is installed:
#
#   enter DIR COMMAND [ARGUMENT ...]
#
# DIR is /given there, and cannot be written. What the command and its children write is in memory; that, their networks and
# they themselves end with it. Of the machine's devices they have none but those of every container, and tun: no /dev/kvm.
set -eu
here=$(readlink -f "$(dirname "$0")/system")
given=$(readlink -f "$1")
shift
export here given
exec unshare --mount --net --pid --uts --ipc --fork --kill-child --propagation private \
    /bin/sh -euc "$(cat <<'END'
tree=$here/tree
# The system itself is nobody's to change: what is written goes to a directory above it.
memory=$here/mnt
mount -t tmpfs -o size=8g,mode=755 tmpfs "$memory"
mkdir "$memory/upper" "$memory/work" "$memory/root"
root=$memory/root
mount -t overlay -o "lowerdir=$tree,upperdir=$memory/upper,workdir=$memory/work" overlay "$root"
mkdir -p "$root/given"
mount --bind "$given" "$root/given"
mount -o remount,bind,ro "$root/given"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/net" "$root/run/lock"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 666 "$root/dev/zero" c 1 5
mknod -m 666 "$root/dev/random" c 1 8
mknod -m 666 "$root/dev/urandom" c 1 9
mknod -m 666 "$root/dev/tty" c 5 0
mknod -m 666 "$root/dev/net/tun" c 10 200
hostname vagrant
ip link set lo up
exec chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM=dumb PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    VAGRANT_CHECKPOINT_DISABLE=1 "$@"
END
)" enter "$@"
