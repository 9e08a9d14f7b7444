#!/bin/sh
# Builds the programs of the official validation suite, and what they find in their
# working directory, into .cache/suite; prints that path and the one of the sources.
set -eu
cd "$(dirname "$0")"
export GOTOOLCHAIN=auto CGO_ENABLED=0 # as in the Makefile; statically linked, to run anywhere
target=$(cd ../.. && pwd)/.cache/suite
module=github.com/opencontainers/runtime-tools
source=$(go list -m -f '{{.Dir}}' $module)
[ -n "$source" ] || {
	go mod download $module
	source=$(go list -m -f '{{.Dir}}' $module)
}
arch=$(go env GOARCH)
if [ ! -e "$source/rootfs-$arch.tar.gz" ]; then
	echo "the suite brings no rootfs for $arch" >&2
	exit 1
fi
mkdir -p "$target/bin"
go build -buildvcs=false -trimpath -ldflags '-s -w' -o "$target/bin/" $module/validation/... $module/cmd/runtimetest
cp -f "$source/rootfs-$arch.tar.gz" "$target/"
chmod u+w "$target/rootfs-$arch.tar.gz"
echo "$target $source"
