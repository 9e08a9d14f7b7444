#!/bin/sh
# The VM's first program once it has its root: furnishes the system as a small
# distribution would, with a pure cgroup2 that gives every controller to the groups
# of the root, runs /husk/job with its output on the host's port, and powers off.
export PATH=/husk/tools:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o ptmxmode=666,mode=620,gid=5 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
sed 's/[^ ]*/+&/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
hostname husk-vm
ip link set lo up
modprobe -aq bfq loop brd zram overlay fuse dummy veth
mkswap -q /dev/vdg && swapon /dev/vdg

port=/dev/$(basename "$(dirname "$(grep -l '^husk$' /sys/class/virtio-ports/*/name)")")
exec <>"$port" >&0 2>&0
echo "husk-vm: ready $(uname -r)"
setsid sh /husk/job
status=$?
tar -c -C /husk/out . >/dev/vdd
echo
echo "husk-vm: exit $status"
busybox poweroff -f
