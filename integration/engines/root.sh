#!/bin/sh
# Prints the path of a throw-away Debian root holding Docker, containerd, Podman, the
# runtimes they come with, CRI-O, and Kubernetes' clients; makes it first if need be. It
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

# No suite of Debian has CRI-O, nor the clients of Kubernetes' runtime interface. The go
# command checks their modules against the public checksum database; their own go.sum pin
# the rest.

# lacks NAME VERSION WHERE says whether the root has it not yet, and goes to its source then.
lacks() {
	name=$1 version=$2
	[ "$(cat "$root/.$name" 2>/dev/null)" != "$version" ] || return 1
	echo "building $name $version (once; some minutes)" >&2
	source=$(go mod download -json "$3/$name@$version" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
	cd "${source:?cannot be had}"
}

# has notes that the root has what was looked for.
has() {
	echo "$version" >"$root/.$name"
	touch "$root" # images of it are to be made anew
}

(
	lacks cri-tools v1.36.0 sigs.k8s.io || exit 0
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$root/usr/local/bin/" ./cmd/crictl github.com/onsi/ginkgo/v2/ginkgo
	CGO_ENABLED=0 go test -c -trimpath -ldflags '-s -w' -o "$root/usr/local/bin/critest" ./cmd/critest
	has
)
(
	lacks cri-o v1.34.0 github.com/cri-o || exit 0
	# With C for libseccomp.
	CGO_ENABLED=1 go build -trimpath -ldflags '-s -w -linkmode external -extldflags -static' \
		-tags netgo,osusergo,seccomp,apparmor,containers_image_openpgp,containers_image_ostree_stub,exclude_graphdriver_btrfs,btrfs_noversion \
		-o "$root/usr/local/bin/" ./cmd/crio
	"${CC:-cc}" -std=c99 -Os -static -s -o "$root/usr/local/bin/pinns" pinns/src/*.c
	has
)
echo "$root"
