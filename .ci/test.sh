#!/bin/sh
# Runs the tests: "quick" for make check, "all" for make test, "vm" for those in
# virtual machines, which are a part of all: KERNEL, PKG and RUN choose among these;
# "conformance" for the official validation suite alone, here and in a VM; "engines" for
# container engines, here and in a VM: RUN, ENGINES_RUNTIMES choose.
set -eu
cd "$(dirname "$0")/.."
export GOTOOLCHAIN=auto # as in the Makefile, for calls by hand
HUSK=$PWD/husk
export HUSK

# native runs them on this machine's kernel, with what it has.
native() {
	private=
	if [ "$(id -u)" = 0 ]; then
		private='unshare --mount' # no test shall reach the machine's mounts
	else
		echo 'test: LEFT OUT without root: whatever needs mounts, devices or cgroups of its own (listed below as skipped)'
	fi
	# shellcheck disable=SC2046,SC2086 # lists of words
	$private go test -json "$@" -timeout 10m $(go list ./... | grep -v /integration) || true
	$private go test -json "$@" -timeout 60m ./integration/... || true
}

# peers are other runtimes to compare with, and programs for the default seccomp profile:
# the root that make bench measures in.
peers() {
	sh integration/bench/peers.sh >/dev/null ||
		echo 'test: LEFT OUT without a root that has crun and runc (why: above): what compares husk with them, and the default profile with programs'
}

# in_vm KERNEL ARGS... runs them with another one, which has all of cgroup v2.
in_vm() {
	kernel=$1
	shift
	for tool in qemu-system-x86_64 mmdebstrap mke2fs; do
		command -v $tool >/dev/null || missing=$tool
	done
	[ "$(id -u)" = 0 ] || missing='being root, which the making of images needs'
	if [ -n "${missing:-}" ]; then
		echo "test: LEFT OUT without $missing: the tests in a VM with $kernel's kernel"
		return
	fi
	go run ./integration/vm -json -kernel "$kernel" "$@" || true
}

# An emulated processor is slow: everything on the oldest kernel, what differs between
# kernels on the newest (with drivers that the cloud flavour lacks), what needs systemd
# or SELinux with those.
vms() {
	if [ -n "${KERNEL:-}${PKG:-}${RUN:-}" ]; then
		# shellcheck disable=SC2086 # a list of words
		in_vm "${KERNEL:-bookworm}" -run "${RUN:-}" ${PKG:-}
		return
	fi
	in_vm bookworm -cover
	in_vm bookworm -lsm selinux -run 'TestScript/proc_selinux' ./integration
	in_vm sid:amd64 ./cgroups
	in_vm sid:amd64 -run 'TestLimit|TestFault|TestScript/(cgroup|delete|dev|events|limits|lifecycle|mount_cgroup|pause|proc_apparmor|proc_cpuset|ps|report|sandbox|state|update)' ./integration
	validation
	in_vm sid -systemd -run 'Real|Systemd|TestLimit' ./cgroups/systemd ./integration
}

# validation is the official suite where limits can be set.
validation() { in_vm bookworm -suite -run 'TestSuite$' ./integration; }

# engines run, below runc and husk, in a root of their own: natively with what cgroup2 has
# here, fast, and in a VM, slowly, what depends on controllers or on systemd.
engines() {
	if [ "$(id -u)" != 0 ] || ! command -v mmdebstrap >/dev/null; then
		echo 'engines: LEFT OUT: they need root, and mmdebstrap for a throw-away Debian root'
		return
	fi
	export CGO_ENABLED=0 # the root's libraries are others
	ENGINES_ROOT=$(integration/engines/root.sh) unshare --mount \
		go test -json -count=1 -timeout 30m -run "${RUN:-}" ./integration/engines || true
	in_vm bookworm -systemd -engines -full -timeout 60m -run "${RUN:-}" ./integration/engines
}

case $1 in
engines) engines ;;
quick) native -short ;;
all) peers && native && vms ;;
vm) vms ;;
conformance)
	native -run '^TestSuite'
	validation
	;;
esac 2>&1 | go run .ci/report.go
