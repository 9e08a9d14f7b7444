#!/bin/sh
# Makes what a VM boots from and prints the directory of the kernel and the root
# image: images.sh SUITE[:FLAVOUR]|VMLINUZ [engines], where the last word asks for the
# root of ../engines. Everything comes from Debian's archive by way of mmdebstrap, which
# leaves the machine's own apt alone, and stays in the user's cache under a hash of this
# file. Delete the directory to renew it.
set -eu

kernel=$1
cache=${XDG_CACHE_HOME:-/var/cache}/husk/vm
mkdir -p "$cache"
recipe=$(sha256sum <"$0" | cut -c -12)
tmp=
trap '[ -z "$tmp" ] || rm -rf "$tmp"' EXIT
exec 9>"$cache/lock"
flock 9 # two of us would make the same twice

# A mirror that lags behind a suite's Valid-Until is still signed.
debian() {
	mmdebstrap --quiet --aptopt='Acquire::Check-Valid-Until "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' "$@" >&2
}

# image TREE SIZE makes one of a directory.
image() {
	mke2fs -q -F -t ext4 -O ^has_journal -d "$1" "$tmp/root" "$2" >&2
	cp "$1/bin/busybox" "$root.busybox"
	mv "$tmp/root" "$root"
	rm -rf "$tmp"
}

case ${2:-} in
engines)
	tree=$(integration/engines/root.sh)
	root=$cache/engines-$recipe-$(stat -c %Y "$tree").ext4
	if [ ! -e "$root" ]; then
		echo "making $root (once; ten seconds)" >&2
		rm -f "$cache"/engines-*
		tmp=$(mktemp -d "$cache/new.XXXXXX")
		image "$tree" 4G
	fi
	;;
*) # what tests call, and systemd for those of its driver
	root=$cache/root-$recipe.ext4
	if [ ! -e "$root" ]; then
		echo "making $root (once; half a minute)" >&2
		tmp=$(mktemp -d "$cache/new.XXXXXX")
		debian --variant=minbase \
			--include=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,busybox-static,crun,uidmap,util-linux,kmod,iproute2,procps,e2fsprogs,libc-bin,libseccomp2,apparmor,secilc \
			trixie "$tmp/tree"
		rm -rf "$tmp/tree/usr/lib/modules"
		image "$tmp/tree" 3G
	fi
	;;
esac

# What the first program needs to reach its disks and its host.
boot_modules='virtio_pci virtio_blk virtio_console ext4'

# initrd TREE VERSION makes one of a busybox and the boot modules.
initrd() {
	mkdir -p "$tmp/initrd/bin" "$tmp/initrd/lib/modules" "$tmp/initrd/proc" "$tmp/initrd/sys" "$tmp/initrd/dev" "$tmp/initrd/root"
	cp "$root.busybox" "$tmp/initrd/bin/busybox"
	for m in $boot_modules; do
		modprobe -d "$1" -S "$2" --show-depends "$m" | sed -n 's/^insmod //p'
	done | awk '!seen[$1]++' | while read -r file; do
		name=$(basename "$file" | sed 's/\.ko.*/.ko/')
		case $file in
		*.xz) xz -dc "$file" ;;
		*.zst) zstd -dc "$file" ;;
		*) cat "$file" ;;
		esac >"$tmp/initrd/lib/modules/$name"
		echo "$name" >>"$tmp/initrd/lib/modules/order"
	done
	cat >"$tmp/initrd/init" <<'INIT'
#!/bin/busybox sh
# vda: the root, vdb: modules, vdc: a tar of what is to run; it becomes /husk.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r m; do insmod /lib/modules/$m; done </lib/modules/order
mount -t ext4 /dev/vda /root
mkdir -p /root/usr/lib/modules /root/husk
mount -t ext4 -o ro /dev/vdb /root/usr/lib/modules
tar -x -C /root/husk -f /dev/vdc
umount /sys /proc
exec switch_root /root /husk/init
INIT
	chmod 755 "$tmp/initrd/init"
	(cd "$tmp/initrd" && find . | busybox cpio -o -H newc 2>/dev/null) >"$tmp/kernel/initrd"
}

case $kernel in
*/*) # a vmlinuz, its modules in lib/modules beside it or of the machine
	dir=$cache/kernel-$recipe-$(sha256sum <"$kernel" | cut -c -12)
	;;
*) dir=$cache/kernel-$recipe-$kernel ;;
esac
if [ ! -e "$dir" ]; then
	echo "making $dir (once; ten seconds)" >&2
	tmp=$(mktemp -d "$cache/new.XXXXXX")
	mkdir "$tmp/kernel" "$tmp/tree"
	suite=${kernel%:*}
	flavour=cloud-amd64 # boots fast
	[ "$suite" = "$kernel" ] || flavour=${kernel##*:}
	main='deb http://deb.debian.org/debian'
	case $kernel in
	*/*)
		version=$(basename "$kernel" | sed 's/vmlinuz-//')
		mkdir -p "$tmp/tree/boot" "$tmp/tree/lib/modules"
		cp "$kernel" "$tmp/tree/boot/vmlinuz-$version"
		cp -a "$(dirname "$(dirname "$(realpath "$kernel")")")/lib/modules/$version" "$tmp/tree/lib/modules/"
		;;
	*-backports*) debian --variant=extract --include="linux-image-$flavour/$suite" "${suite%-backports}" "$tmp/tree" "$main ${suite%-backports} main" "$main $suite main" ;;
	experimental*) debian --variant=extract --include="linux-image-$flavour/$suite" sid "$tmp/tree" "$main sid main" "$main $suite main" ;;
	*) debian --variant=extract --include="linux-image-$flavour" "$suite" "$tmp/tree" ;;
	esac
	[ -e "$tmp/tree/lib" ] || ln -s usr/lib "$tmp/tree/lib"
	version=$(basename "$tmp"/tree/lib/modules/*)
	# Newer packages keep the kernel with its modules.
	cp "$tmp/tree/boot/vmlinuz-$version" "$tmp/kernel/vmlinuz" 2>/dev/null || cp "$tmp/tree/lib/modules/$version/vmlinuz" "$tmp/kernel/vmlinuz"
	echo "$version" >"$tmp/kernel/version"
	depmod -b "$tmp/tree" "$version"
	initrd "$tmp/tree" "$version"
	mkdir "$tmp/modules"
	mv "$tmp/tree/lib/modules/$version" "$tmp/modules/"
	mke2fs -q -F -t ext4 -O ^has_journal -m 0 -d "$tmp/modules" "$tmp/kernel/modules.ext4" 800M >&2
	mv "$tmp/kernel" "$dir"
	rm -rf "$tmp"
fi
tmp=
echo "$dir $root"
