package main

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/huskrun/husk/cgroups"
	"golang.org/x/sys/unix"
)

// insideArg makes this program the measuring process.
const insideArg = "inside"

// The directories of the throw-away root; work is a tmpfs.
const (
	work       = "/mnt"
	filterFile = work + "/filter" // the floor's
	cgroupRoot = "/sys/fs/cgroup"
)

// inside takes a setup on standard input and answers with a report.
func inside() error {
	var s setup
	if err := json.UnmarshalRead(os.Stdin, &s); err != nil {
		return err
	}
	if err := s.enter(); err != nil {
		return err
	}
	b, err := newBench(&s)
	if err != nil {
		return err
	}
	r, err := b.measure()
	if err != nil {
		return err
	}
	return json.MarshalWrite(os.Stdout, r)
}

// enter makes s.Root, read-only but for tmpfs, the root of this mount namespace.
func (s *setup) enter() error {
	groups, err := cgroups.Mountpoint()
	if err != nil {
		return err
	}
	steps := []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		{s.Root, s.Root, "", unix.MS_BIND, ""},
		{"proc", s.Root + "/proc", "proc", 0, ""},
		{"sysfs", s.Root + "/sys", "sysfs", 0, ""},
		{groups, s.Root + cgroupRoot, "", unix.MS_BIND, ""}, // a new mount would change the hierarchy's options
		{"/dev", s.Root + "/dev", "", unix.MS_BIND, ""},
		{"tmpfs", s.Root + "/run", "tmpfs", 0, ""},
		{"tmpfs", s.Root + "/tmp", "tmpfs", 0, ""},
		{"tmpfs", s.Root + work, "tmpfs", 0, ""},
		{"", s.Root, "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY, ""},
	}
	for _, m := range steps {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return &os.PathError{Op: "mount", Path: m.target, Err: err}
		}
	}
	if err := s.bringIn(); err != nil {
		return err
	}
	return errors.Join(os.Chdir(s.Root), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), os.Chdir("/"))
}

// hostBinary is where the root shows an engine's binary of the host.
func hostBinary(engine, path string) string {
	return filepath.Join(work, "host", engine, filepath.Base(path))
}

// bringIn shows the host's binaries in the root by binding the directories they
// lie in: executed from a file system that is no copy, and next to their own
// siblings, since a runtime may mount the directory of its executable.
func (s *setup) bringIn() error {
	for engine, path := range s.Paths {
		target := s.Root + filepath.Dir(hostBinary(engine, path))
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(filepath.Dir(path), target, "", unix.MS_BIND, ""); err != nil {
			return &os.PathError{Op: "bind", Path: path, Err: err}
		}
	}
	return os.WriteFile(s.Root+filterFile, s.Filter, 0o644)
}

// makeRootfs makes the containers' root: a static busybox under its names.
func makeRootfs() error {
	source, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("the root has no busybox: %w", err)
	}
	for _, dir := range []string{"bin", "dev", "proc", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(work, "rootfs", dir), 0o755); err != nil {
			return err
		}
	}
	busybox, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	if err := os.WriteFile(work+"/rootfs/bin/busybox", busybox, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"true", "sh", "sleep", "grep", "hostname"} {
		if err := os.Symlink("busybox", work+"/rootfs/bin/"+name); err != nil {
			return err
		}
	}
	return nil
}

// bundle turns what `spec` printed into a config that all runtimes take, with the
// limits left out: not every machine delegates every controller.
func bundle(spec []byte, cgroup string, profile jsontext.Value, args ...string) ([]byte, error) {
	var config map[string]any
	if err := json.Unmarshal(spec, &config); err != nil {
		return nil, fmt.Errorf("the runtime's spec: %w", err)
	}
	process, _ := config["process"].(map[string]any)
	linux, _ := config["linux"].(map[string]any)
	if process == nil || linux == nil {
		return nil, errors.New("the runtime's spec has no process or linux section")
	}
	process["terminal"], process["args"] = false, args
	config["root"] = map[string]any{"path": work + "/rootfs", "readonly": true}
	config["hostname"] = "bench"
	linux["cgroupsPath"] = cgroup
	linux["resources"] = map[string]any{"devices": []any{map[string]any{"allow": false, "access": "rwm"}}}
	delete(linux, "seccomp")
	if len(profile) > 0 {
		linux["seccomp"] = profile
	}
	spaces := []any{}
	for _, kind := range strings.Fields("pid network ipc uts mount cgroup") {
		spaces = append(spaces, map[string]any{"type": kind})
	}
	linux["namespaces"] = spaces
	return json.Marshal(config)
}
