#!/bin/sh
# Installs what is missing for the purposes named on the command line:
#   build    a C compiler, libseccomp with headers, both fit for static linking
#   run      a static busybox
#   test     what the tests use besides
#   vm       an emulator, and what makes a root and a kernel for it
#   bench    what makes a root with current peers
#   engines  what makes one with engines
# It asks for what is needed by trying it, not by package name, and does nothing
# when all is there. Exits 1 when something that is needed stays missing.
set -eu

can_link() {
	printf '#include <seccomp.h>\nint main(void){return seccomp_init(0)==0;}\n' |
		"${CC:-cc}" -static -x c - -o /dev/null -lseccomp >/dev/null 2>&1
}

# A static program has no interpreter for ldd to ask.
static_busybox() {
	for b in /bin/busybox.static /usr/lib/busybox/busybox-static "$(command -v busybox || true)"; do
		if [ -x "$b" ] && ! ldd "$b" >/dev/null 2>&1; then
			return 0
		fi
	done
	return 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# missing prints the names below which each package manager knows what is missing.
missing() {
	for purpose in "$@"; do
		case $purpose in
		build)
			can_link || echo link
			;;
		run)
			static_busybox || echo busybox
			;;
		test)
			for tool in shellcheck bash zsh fish; do
				have $tool || echo $tool
			done
			have unshare || echo util-linux
			have ip || echo ip
			have pasta || echo passt
			;;
		vm)
			for tool in qemu-system-x86_64 mmdebstrap mke2fs modprobe xz zstd; do
				have $tool || echo $tool
			done
			;;
		bench | engines)
			have mmdebstrap || echo mmdebstrap
			;;
		esac
	done
}

# packages translates them for a package manager.
packages() {
	manager=$1
	shift
	for thing in "$@"; do
		case $manager:$thing in
		apt-get:link) echo gcc libc6-dev libseccomp-dev ;;
		dnf:link) echo gcc glibc-static libseccomp-devel libseccomp-static ;;
		apk:link) echo gcc musl-dev linux-headers libseccomp-dev libseccomp-static ;;
		pacman:link) echo gcc libseccomp ;;
		apt-get:busybox | apk:busybox) echo busybox-static ;;
		apt-get:qemu-system-x86_64) echo qemu-system-x86 ;;
		dnf:qemu-system-x86_64) echo qemu-system-x86-core ;;
		apt-get:ip | apk:ip | pacman:ip) echo iproute2 ;;
		dnf:ip) echo iproute ;;
		*:mke2fs) echo e2fsprogs ;;
		*:modprobe) echo kmod ;;
		apt-get:xz) echo xz-utils ;;
		dnf:shellcheck) echo ShellCheck ;;
		*) echo "$thing" ;;
		esac
	done
}

install_with() {
	manager=$1
	shift
	case $manager in
	apt-get)
		export DEBIAN_FRONTEND=noninteractive
		apt-get install -y --no-install-recommends "$@" ||
			{ apt-get update && apt-get install -y --no-install-recommends "$@"; }
		;;
	dnf) dnf install -y "$@" ;;
	apk) apk add --no-cache "$@" ;;
	pacman) pacman -Sy --noconfirm --needed "$@" ;;
	esac
}

if ! have go; then
	echo 'setup: no go command: install Go 1.21 or newer (https://go.dev/dl); it fetches the right version by itself' >&2
	exit 1
fi

wanted=$(missing "$@")
[ -n "$wanted" ] || exit 0

manager=
for m in apt-get dnf apk pacman; do
	if have "$m"; then
		manager=$m
		break
	fi
done
if [ -z "$manager" ]; then
	echo "setup: missing: $(echo "$wanted" | tr '\n' ' '); none of apt-get, dnf, apk, pacman is here to install it" >&2
else
	# shellcheck disable=SC2046,SC2086 # lists of words
	set -- "$@" -- $(packages "$manager" $wanted)
	purposes=
	while [ "$1" != -- ]; do
		purposes="$purposes $1"
		shift
	done
	shift
	if [ "$(id -u)" = 0 ]; then
		echo "setup: installing $*" >&2
		install_with "$manager" "$@" >&2 || echo "setup: $manager failed" >&2
	else
		echo "setup: missing packages; as root: $manager install $*" >&2
	fi
	# shellcheck disable=SC2086 # a list of words
	wanted=$(missing $purposes)
fi

# Tests that lack a tool say so and are left out; nothing else can do without.
case " $(echo "$wanted" | tr '\n' ' ')" in
*" link "* | *" busybox "*)
	echo "setup: still missing: $(echo "$wanted" | tr '\n' ' ')" >&2
	exit 1
	;;
esac
