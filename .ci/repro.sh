#!/bin/sh
# Builds the tree as it is in two directories of different depth, each with a build
# cache of its own, and compares the results.
set -eu
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
for dir in a b/much/deeper; do
	mkdir -p "$tmp/$dir"
	git ls-files -z --cached --others --exclude-standard | tar -c --null --ignore-failed-read -T - 2>/dev/null | tar -x -C "$tmp/$dir"
	GOCACHE="$tmp/cache-$(basename "$dir")" make -s -C "$tmp/$dir" husk COMMIT="$1"
done
a=$(sha256sum <"$tmp/a/husk")
b=$(sha256sum <"$tmp/b/much/deeper/husk")
if [ "$a" != "$b" ]; then
	echo "repro: the builds differ: ${a%% *} ${b%% *}" >&2
	exit 1
fi
echo "repro: both builds have sha256 ${a%% *}"
