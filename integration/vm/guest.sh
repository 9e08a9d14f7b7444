#!/bin/sh
# The VM's first program once it has its root. It furnishes the system as a small
# distribution would, with a pure cgroup2 that passes every controller on, or has
# systemd do that and start it again as a service; runs /husk/job with its output on the
# host's port, and powers off.
export PATH=/husk/tools:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8

furnish() {
	mount -t proc -o nosuid,nodev,noexec proc /proc
	mount -t sysfs -o nosuid,nodev,noexec sys /sys
	mount -t devtmpfs dev /dev
	mkdir -p /dev/pts /dev/shm /dev/mqueue
	mount -t devpts -o ptmxmode=666,mode=620,gid=5 devpts /dev/pts
	mount -t tmpfs -o mode=1777 shm /dev/shm
	mount -t mqueue mqueue /dev/mqueue
	mount -t tmpfs -o mode=755 run /run
	mount -t tmpfs -o mode=1777 tmp /tmp
	mount -t securityfs security /sys/kernel/security
	[ ! -d /sys/fs/selinux ] || mount -t selinuxfs selinux /sys/fs/selinux
	mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
	ln -s /proc/self/fd /dev/fd
	hostname husk-vm
	ip link set lo up
}

# hand_over goes on as a service that may do as it likes with its own cgroups.
hand_over() {
	units=/etc/systemd/system
	cat >$units/husk.service <<-'END'
		[Unit]
		After=basic.target dbus.socket systemd-logind.service
		FailureAction=poweroff-force
		[Service]
		ExecStart=/husk/init
		StandardInput=null
		StandardOutput=journal+console
		Delegate=yes
		LimitNOFILE=1048576
		TasksMax=infinity
	END
	mkdir -p $units/multi-user.target.wants
	ln -s ../husk.service $units/multi-user.target.wants/
	echo husk-vm >/etc/hostname
	# What takes time and serves nobody here, and engines that tests start themselves.
	for unit in docker.service docker.socket containerd.service podman-restart.service podman-auto-update.timer podman-clean-transient.service getty.target systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-journal-flush.service systemd-update-utmp.service systemd-hwdb-update.service systemd-pcrphase.service apparmor.service; do
		ln -sf /dev/null $units/$unit
	done
	exec /lib/systemd/systemd systemd.unit=multi-user.target
}

if [ $$ = 1 ]; then
	[ ! -e /husk/systemd ] || hand_over
	furnish
fi
sed 's/[^ ]*/+&/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
modprobe -aq bfq loop brd zram overlay fuse tun dummy veth rdma_rxe
chmod 666 /dev/fuse /dev/net/tun # which is udev's part
[ ! -e /sys/module/rdma_rxe ] || rdma link add rxe0 type rxe netdev lo
mkswap -q /dev/vdg && swapon /dev/vdg

port=/dev/$(basename "$(dirname "$(grep -l '^husk$' /sys/class/virtio-ports/*/name)")")
exec <>"$port" >&0 2>&0
echo "husk-vm: ready $(uname -r)"
setsid -w sh /husk/job
status=$?
tar -c -C /husk/out . >/dev/vdd
echo
echo "husk-vm: exit $status"
busybox poweroff -f
