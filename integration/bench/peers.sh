#!/bin/sh
# Prints the path of a throw-away Debian root holding crun, runc, what else runs a command
# in isolation (nsjail no longer is in Debian), a static busybox, and programs to run under
# the default seccomp profile; makes it first if need be. It lives in the user's cache, not
# in the repository: some 500 MB, made once per suite and list of packages. Delete the
# directory to renew it.
set -eu

suite=${SUITE:-forky} # testing: stable's crun and runc are a year or more behind
cache=${XDG_CACHE_HOME:-/var/cache}/husk
packages=crun,runc,busybox-static,iproute2,python3,postgresql,bubblewrap,podman,netavark,nftables
root=$cache/peers-$suite

if [ "$(cat "$root/.packages" 2>/dev/null)" != "$packages" ]; then
	if ! command -v mmdebstrap >/dev/null; then
		echo "mmdebstrap is missing: apt-get install mmdebstrap, or give CRUN=, RUNC= and ROOT=" >&2
		exit 1
	fi
	mkdir -p "$cache"
	new=$(mktemp -d "$root.XXXXXX")
	trap 'rm -rf "$new"' EXIT
	echo "making $root (once; about 60 s)" >&2
	# A mirror that lags behind a suite's Valid-Until is still signed, and
	# yesterday's crun is as good to measure.
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
