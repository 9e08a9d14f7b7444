#!/bin/sh
# What make run shows: a busybox bundle, created, started, inspected, killed and
# deleted by ./husk, then one run of it. Nothing stays behind.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD:$PATH
tmp=$(mktemp -d)
id=demo-$$
cleanup() {
	husk delete --force "$id"
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

rootless=
if [ "$(id -u)" != 0 ]; then
	rootless=--rootless
	export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-$tmp}" # for husk's state
fi

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# show prints a command as one would type it, then runs it.
show() {
	printf '$ %s\n' "$*"
	"$@"
}

# A busybox without an interpreter: it has to run where no library is.
static_busybox() {
	for b in /bin/busybox.static /usr/lib/busybox/busybox-static "$(command -v busybox)"; do
		if [ -x "$b" ] && ! ldd "$b" >/dev/null 2>&1; then
			echo "$b"
			return
		fi
	done
	echo 'demo: no static busybox' >&2
	return 1
}

# limit adds a limit on processes where the kernel can enforce one.
limit() {
	for f in /sys/fs/cgroup/cgroup.controllers /sys/fs/cgroup/unified/cgroup.controllers; do
		if [ -z "$rootless" ] && grep -qsw pids "$f"; then
			sed -i 's/"resources": {/&"pids": {"limit": 32},/' config.json
			return
		fi
	done
}

mkdir -p "$tmp/bundle/rootfs/bin"
cd "$tmp/bundle"
cp "$(static_busybox)" rootfs/bin/busybox
rootfs/bin/busybox --install rootfs/bin

say 'A container whose process waits for a signal'
# shellcheck disable=SC2086,SC2016 # no word when it is empty; expanded in the container
show husk spec $rootless sh -c 'trap "echo Got TERM, bye.; exit" TERM; echo Waiting.; while :; do sleep 0.1; done'
limit
show husk create "$id"
show husk state "$id"
show husk start "$id"
show husk list
show husk kill "$id" TERM
until husk state "$id" | grep -q '"stopped"'; do sleep 0.1; done
show husk delete "$id"

say 'A container in one command'
rm config.json
# shellcheck disable=SC2086,SC2016
show husk spec $rootless sh -c '
  echo "I am process $$ on host $(hostname), user $(id -u)."
  echo "Processes:" /proc/[0-9]*
  echo "Interfaces: $(ls /sys/class/net | tr "\n" " ")"
  echo "Cgroup: $(grep ^0:: /proc/self/cgroup), at most $(cat /sys/fs/cgroup/pids.max 2>/dev/null || echo "(no pids controller)") processes."
  echo "$(grep -c . /proc/mounts) mounts; the root is $(grep " / " /proc/mounts | grep -q " ro," && echo read-only || echo writable)."
  grep -E "^(CapEff|NoNewPrivs|Seccomp):" /proc/self/status
  touch /file 2>&1'
limit
printf '$ husk run %s\n' "$id"
husk run "$id" || status=$?
[ "${status:-0}" = 1 ] # of the touch, which a read-only root refuses
