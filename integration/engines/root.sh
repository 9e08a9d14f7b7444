#!/bin/sh
# Prints the path of a throw-away Debian root holding Docker, containerd, Podman, the
# runtimes they come with, and Kubernetes' clients of them; makes it first if need be. It
# lives in the user's cache, not in the repository: some 700 MB, made once per suite and
# list of packages. Delete the directory to renew it.
set -eu

suite=${SUITE:-forky} # testing: stable's engines are a year or more behind
cache=${XDG_CACHE_HOME:-/var/cache}/husk
# What a VM boots from it needs comes last.
packages=docker.io,docker-cli,containerd,podman,crun,runc,conmon,netavark,aardvark-dns,catatonit,uidmap,passt,busybox-static,containernetworking-plugins,iptables,nftables,iproute2,procps,systemd-sysv,dbus,dbus-user-session,libpam-systemd,kmod
root=$cache/engines-$suite

if [ "$(cat "$root/.packages" 2>/dev/null)" != "$packages" ]; then
	if ! command -v mmdebstrap >/dev/null; then
		echo "mmdebstrap is missing: apt-get install mmdebstrap" >&2
		exit 1
	fi
	mkdir -p "$cache"
	new=$(mktemp -d "$root.XXXXXX")
	trap 'rm -rf "$new"' EXIT
	echo "making $root (once; about 90 s)" >&2
	# A mirror that lags behind a suite's Valid-Until is still signed, and
	# yesterday's engines are as good to test with.
	mmdebstrap --quiet --variant=minbase --include="$packages" \
		--aptopt='Acquire::Check-Valid-Until "false"' --aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		"$suite" "$new" >&2
	chmod 755 "$new"
	echo "$packages" >"$new/.packages"
	rm -rf "$root"
	mv "$new" "$root"
fi

# No distribution has the clients of Kubernetes' runtime interface. The go command checks
# their module against the public checksum database; its own go.sum pins the rest.
critools=v1.36.0
if [ "$(cat "$root/.critools" 2>/dev/null)" != "$critools" ]; then
	echo "building crictl, critest and ginkgo $critools (once; about 2 min)" >&2
	source=$(go mod download -json "sigs.k8s.io/cri-tools@$critools" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
	(
		cd "$source"
		export CGO_ENABLED=0
		go build -trimpath -ldflags '-s -w' -o "$root/usr/local/bin/" ./cmd/crictl github.com/onsi/ginkgo/v2/ginkgo
		go test -c -trimpath -ldflags '-s -w' -o "$root/usr/local/bin/critest" ./cmd/critest
	)
	echo "$critools" >"$root/.critools"
fi
echo "$root"
