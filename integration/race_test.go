package integration

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Someone inside exchanges a directory and a link at full speed while husk works
// on the path: whatever husk looks at has changed when it acts (CVE-2021-30465,
// CVE-2025-31133, CVE-2024-45310 and a dozen more).

// raceTime is how long a race goes on.
func raceTime() time.Duration {
	if testing.Short() {
		return time.Second
	}
	return 4 * time.Second
}

// exchange swaps two names until the returned function is called.
func exchange(t *testing.T, a, b string) (stop func()) {
	t.Helper()
	var done atomic.Bool
	ended := make(chan int)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		n := 0
		for !done.Load() {
			if unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE) == nil {
				n++
			}
		}
		ended <- n
	}()
	return func() {
		done.Store(true)
		if n := <-ended; n < 100 {
			t.Errorf("only %d exchanges: no race", n)
		}
	}
}

// race runs the bundle again and again while two paths are exchanged, and tells
// how often it worked.
func race(t *testing.T, c *can, b *bundle, one, two string, look func(r result)) {
	t.Helper()
	stop := exchange(t, one, two)
	defer stop()
	end := time.Now().Add(raceTime())
	tries, successes := 0, 0
	for time.Now().Before(end) && !t.Failed() {
		tries++
		r := c.attack(b)
		if r.code == 0 {
			successes++
			look(r)
		}
	}
	t.Logf("%d of %d runs succeeded", successes, tries)
}

// The place of mounts is a volume that another container changes.
func TestRaceMountTarget(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		volume := t.TempDir()
		b := newBundle(t, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: volume, Destination: "/vol", Options: []string{"rbind"}})
			for range 10 {
				s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs", Source: "race", Destination: "/vol/a/d"})
			}
			readAll(s)
		})
		must(t, os.MkdirAll(filepath.Join(volume, "a/d"), 0o755))
		must(t, os.Symlink("../../../../../../../../.."+c.dir, filepath.Join(volume, "b")))
		race(t, c, b, filepath.Join(volume, "a"), filepath.Join(volume, "b"), func(result) {})
	})
}

// Missing directories of a target are made while their parent is exchanged.
func TestRaceMkdirAll(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		volume := t.TempDir()
		n := 0
		b := newBundle(t, nil)
		must(t, os.MkdirAll(filepath.Join(volume, "a"), 0o755))
		must(t, os.Symlink(c.dir, filepath.Join(volume, "b")))
		stop := exchange(t, filepath.Join(volume, "a"), filepath.Join(volume, "b"))
		defer stop()
		for end := time.Now().Add(raceTime()); time.Now().Before(end); {
			n++
			b.write(func(s *specs.Spec) {
				s.Mounts = append(s.Mounts,
					specs.Mount{Type: "bind", Source: volume, Destination: "/vol", Options: []string{"rbind"}},
					specs.Mount{Type: "tmpfs", Source: "race", Destination: "/vol/a/b/c/d" + itoa(n)},
					specs.Mount{Type: "bind", Source: "/etc/hostname", Destination: "/vol/a/file" + itoa(n), Options: []string{"bind"}})
				readAll(s)
			})
			c.attack(b)
		}
	})
}

// A /proc that is a directory when looked at and a link when mounted on.
func TestRaceProc(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		b := newBundle(t, func(s *specs.Spec) { s.Process.Args = []string{"/probe", "mounts"} })
		must(t, os.Mkdir(b.rootfs("bad"), 0o755))
		b.link("/bad", "proc2")
		race(t, c, b, b.rootfs("proc"), b.rootfs("proc2"), func(r result) {
			if line, ok := parseFacts(r.stdout).mount("/bad"); ok {
				t.Errorf("the attacker's directory is mounted on: %q", line)
			}
		})
	})
}

// The null device of the image, with which paths might be masked, is exchanged
// with a secret (CVE-2025-31133).
func TestRaceMask(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		var masked, args []string
		for i := range 20 {
			masked = append(masked, "/masked/"+itoa(i))
			args = append(args, "/masked/"+itoa(i))
		}
		b := newBundle(t, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts[:1:1], s.Mounts[2]) // the image's own /dev
			s.Linux.MaskedPaths = masked
			s.Process.Args = append([]string{"/probe", "stat"}, args...)
		})
		must(t, os.Mkdir(b.rootfs("masked"), 0o755))
		for _, m := range masked {
			must(t, os.WriteFile(b.rootfs(m), []byte("masked"), 0o644))
		}
		must(t, unix.Mknod(b.rootfs("dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(t, os.Symlink(filepath.Join(c.dir, "secret"), b.rootfs("dev/other")))
		race(t, c, b, b.rootfs("dev/null"), b.rootfs("dev/other"), func(r result) {
			if n := strings.Count(r.stdout, " 1:3"); n != len(masked) {
				t.Errorf("%d of %d paths are the null device:\n%s", n, len(masked), r.stdout)
			}
		})
	})
}

// The source of tmpcopyup (CVE-2018-15664 and others).
func TestRaceCopyup(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		b := newBundle(t, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs", Source: "t", Destination: "/up", Options: []string{"tmpcopyup"}})
			s.Process.Args = []string{"/bin/sh", "-c", "cat /up/* /up/*/*; exit 0"}
		})
		must(t, os.MkdirAll(b.rootfs("up/d"), 0o755))
		must(t, os.WriteFile(b.rootfs("up/d/secret"), []byte("mine\n"), 0o644))
		must(t, os.Symlink("../../../../../../../../../.."+c.dir+"/d", b.rootfs("up/link")))
		race(t, c, b, b.rootfs("up/d"), b.rootfs("up/link"), func(result) {})
	})
}

// The working directory is exchanged with a link to the outside.
func TestRaceCwd(t *testing.T) {
	box(t, func(t *testing.T) {
		c := newCan(t)
		b := newBundle(t, func(s *specs.Spec) {
			s.Process.Cwd = "/work/dir/new"
			s.Process.Args = []string{"/bin/sh", "-c", "cat ./secret ../secret; pwd"}
		})
		must(t, os.MkdirAll(b.rootfs("work/dir"), 0o755))
		must(t, os.Symlink("/proc/self/root/../../../.."+c.dir+"/d", b.rootfs("work/link")))
		race(t, c, b, b.rootfs("work/dir"), b.rootfs("work/link"), func(result) {})
	})
}
