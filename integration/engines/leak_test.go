package engines

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/huskrun/husk/integration/harness"
)

// settle is how long an engine may take to tidy up after it has answered.
const settle = 10 * time.Second

// A snapshot is what containers could leave behind in the box.
type snapshot map[string][]string

func census() snapshot {
	return snapshot{
		"process": processes(),
		"mount":   mountpoints(),
		"cgroup":  directories("/sys/fs/cgroup"),
		"link":    names("/sys/class/net"),
		"state":   states(),
	}
}

// compare waits for the box to look as it did, and fails the test if it does not.
func (s snapshot) compare(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(harness.Patience(settle))
	for {
		left := s.leaks()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// engineKeeps is what engines make when first used and keep.
var engineKeeps = []string{
	"/sys/fs/cgroup/docker", "/sys/fs/cgroup/k8s.io", "/sys/fs/cgroup/default", "/sys/fs/cgroup/libpod_parent", "/run/docker/netns/default",
}

func (s snapshot) leaks() (left []string) {
	for what, list := range census() {
		for _, x := range list {
			// CRI-O forgets the cgroups of the monitors that it finds when it is started.
			if !slices.Contains(s[what], x) && !slices.Contains(engineKeeps, x) && !strings.HasPrefix(x, "/sys/fs/cgroup/crio-conmon-") {
				left = append(left, what+" "+x)
			}
		}
	}
	return left
}

// processes lists all in the box but the daemons, which may have been restarted, and a
// machine's kernel threads.
func processes() (all []string) {
	for _, name := range names("/proc") {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		status, err := os.ReadFile("/proc/" + name + "/status")
		if err != nil {
			continue
		}
		if haveSystemd() && bytes.Contains(status, []byte("\nPPid:\t2\n")) {
			continue
		}
		cmdline, _ := os.ReadFile("/proc/" + name + "/cmdline")
		daemon, _, _ := strings.Cut(string(cmdline), "\x00")
		if slices.Contains([]string{"/usr/sbin/dockerd", "/usr/bin/containerd", "/usr/local/bin/crio"}, daemon) {
			continue
		}
		comm, _, _ := strings.Cut(strings.TrimPrefix(string(status), "Name:\t"), "\n")
		all = append(all, name+" "+comm+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
	}
	return all
}

func mountpoints() (all []string) {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			all = append(all, fields[4])
		}
	}
	return all
}

func directories(root string) (all []string) {
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	return all
}

// states lists the directories in which runtimes and shims keep containers.
func states() (all []string) {
	for _, pattern := range []string{
		"/run/husk/*", "/run/runc/*", "/run/docker/runtime-*/moby/*", "/run/containerd/runc/*/*",
		"/run/containerd/io.containerd.runtime.v2.task/*/*", "/run/netns/*",
		"/run/systemd/transient/*",
	} {
		found, _ := filepath.Glob(pattern)
		all = append(all, found...)
	}
	return all
}

func names(dir string) (all []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}
