#!/bin/sh
# Runs the tests: "quick" for make check, "all" for make test, "vm" for those in a VM.
set -eu
cd "$(dirname "$0")/.."
export GOTOOLCHAIN=auto # as in the Makefile, for calls by hand
short=
[ "$1" = all ] || short=-short
private=
if [ "$(id -u)" = 0 ]; then
	private='unshare --mount' # no test shall reach the machine's mounts
else
	echo 'test: LEFT OUT without root: whatever needs mounts, devices or cgroups of its own (listed below as skipped)' >&2
fi
HUSK=$PWD/husk
export HUSK

# in_vm KERNEL PACKAGES... runs their tests in a virtual machine.
in_vm() {
	kernel=$1
	shift
	for tool in qemu-system-x86_64 mmdebstrap mke2fs; do
		command -v $tool >/dev/null || missing=$tool
	done
	[ "$(id -u)" = 0 ] || missing='being root, which makes the images'
	if [ -n "${missing:-}" ]; then
		echo "test: LEFT OUT without $missing: the tests in a VM with $kernel" >&2
		return
	fi
	go run ./integration/vm -json -kernel "$kernel" -run "${RUN:-}" "$@" || true
}

if [ "$1" = vm ]; then
	# shellcheck disable=SC2086 # a list of words
	in_vm "${KERNEL:-bookworm}" ${PKG:-} 2>&1 | go run .ci/report.go
	exit
fi

# shellcheck disable=SC2046,SC2086 # lists of words
{
	$private go test -json $short -timeout 10m $(go list ./... | grep -v /integration) || true
	$private go test -json $short -timeout 60m ./integration/... || true
} 2>&1 | go run .ci/report.go
