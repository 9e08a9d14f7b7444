#!/bin/sh
# Prints the path of a throw-away Debian root holding crun, runc and a static
# busybox; makes it first if need be. It lives in the user's cache, not in the
# repository: some 150 MB, made once per suite. Delete the directory to renew it.
set -eu

suite=${SUITE:-forky} # testing: stable's crun and runc are a year or more behind
cache=${XDG_CACHE_HOME:-/var/cache}/husk
root=$cache/peers-$suite

if [ ! -e "$root/.complete" ]; then
	if ! command -v mmdebstrap >/dev/null; then
		echo "mmdebstrap is missing: apt-get install mmdebstrap, or give CRUN=, RUNC= and ROOT=" >&2
		exit 1
	fi
	mkdir -p "$cache"
	new=$(mktemp -d "$root.XXXXXX")
	trap 'rm -rf "$new"' EXIT
	echo "making $root (once; about 15 s)" >&2
	# A mirror that lags behind a suite's Valid-Until is still signed, and
	# yesterday's crun is as good to measure.
	mmdebstrap --quiet --variant=minbase --include=crun,runc,busybox-static \
		--aptopt='Acquire::Check-Valid-Until "false"' "$suite" "$new" >&2
	chmod 755 "$new"
	touch "$new/.complete"
	rm -rf "$root"
	mv "$new" "$root"
fi
echo "$root"
