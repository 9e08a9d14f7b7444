package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// rootfs shows a directory in the scratch.
func (b *builder) rootfs() (lower string, err error) {
	dir, err := b.directory("rootfs", b.o.Rootfs)
	if err != nil {
		return "", err
	}
	if dir == "/" {
		return "", bad("rootfs", "leave it out, and the job sees the host's own root", "it cannot be /, in which nothing would be hidden")
	}
	b.mount(specs.Mount{Destination: "/lower", Source: dir, Options: b.mapped([]string{"bind", "src-nosymlinks", "ro", "nosuid", "nodev"})})
	if b.stubs(dir) {
		return "stubs:lower", nil
	}
	return "lower", nil
}

// stubs makes, for an ordinary user, a layer above the directory with what the job's own
// mounts are made in. There these directories belong to the user, where in the one below
// they may be root's, who would have to make what is mounted on. A mount is what makes them,
// and overlay does not see it.
func (b *builder) stubs(dir string) (needed bool) {
	if b.uid == 0 {
		return false
	}
	tmpfs := func(on string) {
		b.mount(specs.Mount{Destination: on, Type: "tmpfs", Source: "stub", Options: []string{"mode=755", "size=64k"}})
	}
	targets := append(b.targets(), secretsDir)
	for i := range targets {
		targets[i] = filepath.Dir(targets[i])
	}
	slices.Sort(targets)
	for _, parent := range slices.Compact(targets) {
		if !plain(dir, parent) {
			continue
		}
		if !needed {
			tmpfs("/stubs")
			needed = true
		}
		tmpfs("/stubs" + parent)
	}
	return needed
}

// plain says whether a path begins, in a root file system, with a directory that exists,
// and leads through nothing but directories.
func plain(root, path string) bool {
	at := root
	for i, name := range strings.Split(strings.Trim(path, "/"), "/") {
		at += "/" + name
		st, err := os.Lstat(at)
		switch {
		case name == "" || err != nil && (i == 0 || !os.IsNotExist(err)):
			return false
		case err != nil:
			return true
		case !st.IsDir():
			return false
		}
	}
	return true
}
