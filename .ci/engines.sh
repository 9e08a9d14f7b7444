#!/bin/sh
# Runs Docker, containerd and Podman with husk below them, and with runc for comparison.
# RUN chooses among the tests, ENGINES_RUNTIMES among the runtimes.
set -eu
cd "$(dirname "$0")/.."
export GOTOOLCHAIN=auto # as in the Makefile, for calls by hand
if [ "$(id -u)" != 0 ] || ! command -v mmdebstrap >/dev/null; then
	echo 'engines: LEFT OUT: they need root, and mmdebstrap for a throw-away Debian root'
	exit 0
fi
ENGINES_ROOT=$(integration/engines/root.sh)
HUSK=$PWD/husk
export ENGINES_ROOT HUSK
# The test binary is executed in the root, whose libraries are others.
{ CGO_ENABLED=0 unshare --mount go test -json -count=1 -timeout 30m -run "${RUN:-}" ./integration/engines || true; } | go run .ci/report.go
