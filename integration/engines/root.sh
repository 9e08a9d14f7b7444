#!/bin/sh
# Prints the path of a throw-away Debian root holding Docker, containerd, Podman and
# the runtimes they come with; makes it first if need be. It lives in the user's cache,
# not in the repository: some 600 MB, made once per suite and list of packages. Delete
# the directory to renew it.
set -eu

suite=${SUITE:-forky} # testing: stable's engines are a year or more behind
cache=${XDG_CACHE_HOME:-/var/cache}/husk
# What a VM boots from it needs comes last.
packages=docker.io,docker-cli,containerd,podman,crun,runc,conmon,netavark,aardvark-dns,catatonit,uidmap,passt,busybox-static,iptables,nftables,iproute2,procps,systemd-sysv,dbus,dbus-user-session,libpam-systemd,kmod
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
echo "$root"
