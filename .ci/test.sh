#!/bin/sh
# Runs the tests: "quick" for make check, "all" for make test.
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

# shellcheck disable=SC2046,SC2086 # lists of words
{
	$private go test -json $short -timeout 10m $(go list ./... | grep -v /integration) || true
	$private go test -json $short -timeout 60m ./integration/... || true
} 2>&1 | go run .ci/report.go
