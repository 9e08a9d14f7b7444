package integration

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// A snapshot is all that a container runtime could leave behind in a box.
type snapshot struct {
	processes []string
	mounts    []string
	groups    []string
	classes   []string // of resctrl, where there is one, and what they may use
	links     []string
	filter    []string // tables of nftables
	state     []string
	fds       []string
	names     []string // host and domain name: a missing UTS namespace changes them
}

// settle is how long something may take to disappear after a test: a killed
// process is a zombie until PID 1 has reaped it.
var settle = patience(5 * time.Second)

func census(t *testing.T) *snapshot {
	t.Helper()
	return &snapshot{
		processes: processes(),
		mounts:    fileLines("/proc/self/mountinfo"),
		groups:    directories("/sys/fs/cgroup"),
		classes:   classes(),
		links:     linkNames(),
		filter:    tables(),
		state:     stateFiles("/run/husk"),
		fds:       descriptors(),
		names:     utsNames(),
	}
}

// compare waits for the box to look as it did, and fails the test if it does not.
func (s *snapshot) compare(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(settle)
	for {
		left := s.leaks(t)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *snapshot) leaks(t *testing.T) []string {
	t.Helper()
	now := census(t)
	var left []string
	for _, c := range []struct {
		what        string
		before, now []string
	}{
		{"process", s.processes, now.processes},
		{"mount", s.mounts, now.mounts},
		{"cgroup", s.groups, now.groups},
		{"class", s.classes, now.classes},
		{"link", s.links, now.links},
		{"table", s.filter, now.filter},
		{"state", s.state, now.state},
		{"descriptor", s.fds, now.fds},
		{"name", s.names, now.names},
	} {
		for _, x := range c.now {
			if !slices.Contains(c.before, x) {
				left = append(left, c.what+" "+x)
			}
		}
		for _, x := range c.before {
			if !slices.Contains(c.now, x) {
				left = append(left, c.what+" gone: "+x)
			}
		}
	}
	return left
}

// processes lists everything in the box but PID 1 and this process.
func processes() []string {
	var all []string
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		status, err := os.ReadFile("/proc/" + e.Name() + "/status")
		if err != nil {
			continue
		}
		cmdline, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		head, _, _ := strings.Cut(string(status), "\nTgid")
		all = append(all, e.Name()+" "+strings.ReplaceAll(head, "\n", " ")+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
	}
	return all
}

func fileLines(path string) []string {
	data, _ := os.ReadFile(path)
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

// directories lists a cgroup tree.
func directories(root string) []string {
	var all []string
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	return all
}

// stateFiles lists the state root but for what is meant to stay: the seccomp
// cache, and the root itself.
func stateFiles(root string) []string {
	var all []string
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return nil
		}
		if d.IsDir() && d.Name() == "@seccomp" {
			return fs.SkipDir
		}
		all = append(all, path)
		return nil
	})
	return all
}

func linkNames() []string {
	var all []string
	for _, l := range fileLines("/proc/self/net/dev") {
		if name, _, ok := strings.Cut(l, ":"); ok {
			all = append(all, strings.TrimSpace(name))
		}
	}
	return all
}

// tables lists those of the packet filter, if the kernel has one.
func tables() []string {
	var all []string
	list, _ := new(nftables.Conn).ListTables()
	for _, table := range list {
		all = append(all, table.Name)
	}
	return all
}

// descriptors lists what this process has open, without the epoll set and the
// event descriptor that the Go runtime opens when it first feels like it.
func descriptors() []string {
	var all []string
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(target, "anon_inode:[event") || strings.HasSuffix(target, "/fd") {
			continue
		}
		all = append(all, e.Name()+" "+target)
	}
	return all
}

func utsNames() []string {
	var u unix.Utsname
	unix.Uname(&u)
	return []string{unix.ByteSliceToString(u.Nodename[:]), unix.ByteSliceToString(u.Domainname[:])}
}
