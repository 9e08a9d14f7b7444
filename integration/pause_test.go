package integration

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// counting makes a container, in the cgroup /count, that counts in a file.
func counting(t *testing.T) *bundle {
	t.Helper()
	b := newBundle(t, func(s *specs.Spec) {
		s.Linux.CgroupsPath = "/count"
		s.Process.Args = []string{"/bin/sh", "-c", `i=0; while :; do i=$((i+1)); echo $i >/count; sleep 0.001; done`}
	})
	b.must("run", "-d", "c1")
	b.counts()
	return b
}

// counts fails unless the container runs.
func (b *bundle) counts() {
	b.t.Helper()
	os.Remove(b.rootfs("count"))
	poll(b.t, func() bool { _, err := os.Stat(b.rootfs("count")); return err == nil }, "the container does not run")
}

// besides runs a command over and over until stop is called; it fails at an error that is
// not among allowed, and when one call takes five seconds.
func (b *bundle) besides(allowed []string, args ...string) (stop func()) {
	var wait sync.WaitGroup
	done := make(chan struct{})
	wait.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				b.t.Logf("%v: %d times", args, n)
				return
			default:
			}
			if r := b.husk(args...); r.code != 0 && !containsAny(r.stderr, allowed) || r.took > patience(5*time.Second) {
				b.t.Errorf("%v: exit %d after %v: %s", args, r.code, r.took, r.stderr)
			}
		}
	})
	return func() {
		close(done)
		wait.Wait()
	}
}

// Fault 8: several pause, several resume, all look and signal; afterwards the container
// can be resumed, and runs.
func TestFaultFreezerRaces(t *testing.T) {
	box(t, func(t *testing.T) {
		b := counting(t)
		allowed := []string{"container not running: it is paused", "container not paused", "locked by another operation", "cannot exec in a paused container"}
		var stops []func()
		for _, line := range []string{
			"pause c1", "pause c1", "resume c1", "resume c1", "kill --all c1 CONT", "state --stats c1", "ps -f json c1",
			"exec c1 /bin/true", "exec --ignore-paused c1 /bin/true",
		} {
			stops = append(stops, b.besides(allowed, strings.Fields(line)...))
		}
		time.Sleep(raceTime())
		for _, stop := range stops {
			stop()
		}
		if r := b.husk("resume", "c1"); r.code != 0 && !strings.Contains(r.stderr, "not paused") {
			t.Errorf("exit %d: %s", r.code, r.stderr)
		}
		b.counts()
		b.must("delete", "--force", "c1")
	})
}

// Fault 8, the other half: one pauses and resumes, always to the end, while others execute
// processes. Whatever exec does at a frozen moment, it ends, and the processes with it.
func TestFaultFreezerExec(t *testing.T) {
	box(t, func(t *testing.T) {
		b := counting(t)
		stops := []func(){
			b.besides([]string{"cannot exec in a paused container"}, "exec", "c1", "/bin/true"),
			b.besides(nil, "exec", "--ignore-paused", "c1", "/bin/sh", "-c", "true; true"),
		}
		n := 0
		for end := time.Now().Add(raceTime()); time.Now().Before(end) && !t.Failed(); n++ {
			b.must("pause", "c1")
			if s, _ := b.state("c1"); s.Status != "paused" {
				t.Errorf("%s after pause", s.Status)
			}
			b.must("resume", "c1")
			time.Sleep(time.Duration(n%5) * 2 * time.Millisecond)
		}
		for _, stop := range stops {
			stop()
		}
		t.Logf("paused %d times", n)
		b.counts()
		b.must("kill", "c1", "KILL")
		b.waitFor("c1", specs.StateStopped)
		b.must("delete", "c1")
	})
}

// Who has paused a container has it paused until he resumes it, whatever others do that is
// not a resume.
func TestFaultFreezerHolds(t *testing.T) {
	box(t, func(t *testing.T) {
		b := counting(t)
		var stops []func()
		for _, line := range []string{"kill --all c1 CONT", "kill c1 CONT", "state c1"} {
			stops = append(stops, b.besides(nil, strings.Fields(line)...))
		}
		n := 0
		for end := time.Now().Add(raceTime()); time.Now().Before(end) && !t.Failed(); n++ {
			b.must("pause", "c1")
			for range 10 {
				if b, _ := os.ReadFile("/sys/fs/cgroup/count/cgroup.events"); !strings.Contains(string(b), "frozen 1") {
					t.Fatal("a paused container runs")
				}
				time.Sleep(100 * time.Microsecond)
			}
			b.must("resume", "c1")
		}
		for _, stop := range stops {
			stop()
		}
		t.Logf("paused %d times", n)
		b.counts()
		b.must("delete", "--force", "c1")
	})
}

// A paused container with hundreds of processes and groups of its own is gone in time.
func TestFaultFreezerDelete(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, func(s *specs.Spec) {
			s.Linux.CgroupsPath = "/count"
			s.Linux.Namespaces = s.Linux.Namespaces[:5] // no cgroup namespace
			s.Mounts[len(s.Mounts)-1].Options = nil     // a writable hierarchy
			s.Process.Args = []string{"/bin/sh", "-c", `cd /sys/fs/cgroup/count
				for g in a a/b c; do
					mkdir $g
					for i in $(seq 30); do (echo 0 >$g/cgroup.procs; exec sleep 1000) & done
				done
				echo 1 >c/cgroup.freeze
				echo done >/count; wait`}
		})
		b.must("run", "-d", "c1")
		poll(t, func() bool { _, err := os.Stat(b.rootfs("count")); return err == nil }, "no processes")
		b.must("pause", "c1")
		r := b.must("delete", "--force", "c1")
		if r.took > patience(5*time.Second) {
			t.Errorf("took %v", r.took)
		}
		t.Logf("took %v", r.took)
		if _, err := os.Stat("/sys/fs/cgroup/count"); err == nil {
			t.Error("the cgroup is still there")
		}
	})
}
