package integration

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// execs executes true in container id for some seconds, as fast as it goes, from a
// terminal and with a secret of the host in husk's environment.
func (b *bundle) execs(id string, seconds int, args ...string) (n int) {
	b.t.Helper()
	s := newSeat(b.t)
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); n++ {
		cmd := exec.Command(runtimePath(), slices.Concat([]string{"exec"}, args, []string{id, "/bin/true"})...)
		cmd.Env = append(os.Environ(), "HOSTSECRET=of the host")
		cmd.Stdin, cmd.SysProcAttr = s.line, &syscall.SysProcAttr{Setsid: true, Setctty: true}
		r := runCmd(b.t, cmd)
		if st, ok := b.state(id); patience(1) > 1 && (!ok || st.Status == specs.StateStopped) {
			break // the machine is so slow that the container ended meanwhile
		}
		if r.code != 0 {
			b.t.Fatalf("status %d: %s", r.code, r.stderr)
		}
	}
	return n
}

// watched starts a container that looks at what joins it, executes in it, and returns
// what it has found.
func watched(t *testing.T, mode string, edit func(*specs.Spec), owner int, args ...string) (facts, int) {
	t.Helper()
	seconds := int(raceTime() / time.Second)
	b := newOwnedBundle(t, owner, func(s *specs.Spec) {
		s.Process.Args = []string{"/probe", mode, itoa(seconds + 2)} // in whole seconds, and outliving the others
		edit(s)
	})
	watcher := exec.Command(runtimePath(), "run", "-b", b.dir, "c1")
	var out strings.Builder
	watcher.Stdout, watcher.Stderr = &out, &out
	must(t, watcher.Start())
	b.waitFor("c1", specs.StateRunning)
	n := b.execs("c1", seconds, args...)
	watcher.Wait()
	t.Logf("%d execs: %s", n, strings.Join(strings.Fields(out.String()), " "))
	return parseFacts(out.String()), n
}

func withCaps(names ...string) *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{Bounding: names, Permitted: names, Effective: names}
}

// CVE-2016-9962, CVE-2020-14300, CVE-2019-5736: root in the container, who may trace
// whom it sees and waits for nothing else, finds in a process that joins the container no
// right, no file and no memory that it does not have itself.
func TestAttackExec(t *testing.T) {
	box(t, func(t *testing.T) {
		before := sha256.Sum256(read(t, runtimePath()))
		tracer := withCaps("CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_KILL")
		userNS := func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
		}
		for name, test := range map[string]struct {
			edit  func(*specs.Spec)
			owner int
			args  []string
		}{
			"plain":                             {func(*specs.Spec) {}, 0, nil},
			"ordinary user":                     {func(*specs.Spec) {}, 0, []string{"-u", "1000"}},
			"no no_new_privs":                   {func(s *specs.Spec) { s.Process.NoNewPrivileges = false }, 0, nil},
			"user namespace":                    {userNS, 100000, nil},
			"filter":                            {func(s *specs.Spec) { s.Linux.Seccomp = harmless() }, 0, nil},
			"filter that lets nothing be made":  {func(s *specs.Spec) { s.Linux.Seccomp = childless(); s.Process.NoNewPrivileges = false }, 0, nil},
			"filter, no_new_privs no":           {func(s *specs.Spec) { s.Linux.Seccomp = harmless(); s.Process.NoNewPrivileges = false }, 0, nil},
			"listening filter":                  {func(s *specs.Spec) { s.Linux.Seccomp = listening(t) }, 0, nil},
			"listening filter, no_new_privs no": {func(s *specs.Spec) { s.Linux.Seccomp = listening(t); s.Process.NoNewPrivileges = false }, 0, []string{"-u", "1000"}},
		} {
			t.Run(name, func(t *testing.T) {
				f, _ := watched(t, "intrude", func(s *specs.Spec) { s.Process.Capabilities = tracer; test.edit(s) }, test.owner, test.args...)
				if name == "filter that lets nothing be made" {
					// It has to keep the right to install the filter, and may be caught before it does.
					f["privileged"], f["unfiltered"] = []string{"0"}, []string{"0"}
				}
				for _, bad := range []string{"privileged", "unfiltered", "wayout", "root", "writable", "secret", "terminal"} {
					if f.one(bad) != "0" {
						t.Errorf("%s %s", bad, f.one(bad))
					}
				}
			})
		}
		if sha256.Sum256(read(t, runtimePath())) != before {
			t.Fatal("husk was overwritten")
		}
	})
}

// Root in the container takes the conversation of exec out of the hands of the process
// that is being born: whatever it says there, it makes exec neither report, nor signal,
// nor kill a process of the host.
func TestAttackExecForged(t *testing.T) {
	box(t, func(t *testing.T) {
		victim := exec.Command("sleep", "1000")
		must(t, victim.Start())
		defer victim.Wait()
		defer victim.Process.Kill()
		seconds := int(raceTime() / time.Second)
		b := newBundle(t, func(s *specs.Spec) {
			s.Process.Args = []string{"/probe", "forge", itoa(victim.Process.Pid), itoa(seconds + 2)}
			s.Process.Capabilities = withCaps("CAP_SYS_PTRACE", "CAP_KILL")
		})
		attacker := exec.Command(runtimePath(), "run", "-b", b.dir, "c1")
		var out strings.Builder
		attacker.Stdout, attacker.Stderr = &out, &out
		must(t, attacker.Start())
		b.waitFor("c1", specs.StateRunning)
		pidFile, n := b.dir+"/pid", 0
		for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); n++ {
			os.Remove(pidFile)
			file := []string{pidFile, "/nowhere/pid"}[n%2] // after the second all is taken back
			r := b.husk("exec", "-d", "--pid-file", file, "c1", "/bin/true")
			pid, _ := os.ReadFile(pidFile)
			if string(pid) == itoa(victim.Process.Pid) {
				t.Fatalf("exec reports a process of the host: status %d: %s", r.code, r.stderr)
			}
			if !slices.Contains([]int{0, 255}, r.code) {
				t.Errorf("status %d: %s", r.code, r.stderr)
			}
			if unix.Kill(victim.Process.Pid, 0) != nil || stopped(victim.Process.Pid) {
				t.Fatal("a process of the host was killed")
			}
		}
		attacker.Wait()
		t.Logf("%d execs: %s", n, strings.Join(strings.Fields(out.String()), " "))
	})
}

// stopped says whether a child has ended.
func stopped(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(data), ") Z ")
}

// harmless is a filter like Docker's: it denies little, and what it does not know.
func harmless() *specs.LinuxSeccomp {
	errno := uint(unix.ENOSYS)
	return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &errno}, {Names: []string{"kexec_load"}, Action: specs.ActErrno},
	}}
}

// listening is a filter with an agent that waits for its listeners.
func listening(t *testing.T) *specs.LinuxSeccomp {
	f := harmless()
	f.Syscalls = append(f.Syscalls, specs.LinuxSyscall{Names: []string{"sethostname"}, Action: specs.ActNotify})
	f.ListenerPath = filepath.Join(t.TempDir(), "agent")
	agent := exec.Command(tool("agent"), f.ListenerPath, "1000000")
	must(t, agent.Start())
	t.Cleanup(func() { agent.Process.Kill(); agent.Wait() })
	for range 500 {
		if _, err := os.Stat(f.ListenerPath); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return f
}

// childless is a filter under which no process can be made.
func childless() *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"clone", "clone3", "fork", "vfork"}, Action: specs.ActErrno},
	}}
}

// Root without CAP_SYS_PTRACE reaches nothing at all, whatever the filter.
func TestAttackExecUntraced(t *testing.T) {
	box(t, func(t *testing.T) {
		caps := withCaps("CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_KILL", "CAP_SETUID")
		for name, filter := range map[string]*specs.LinuxSeccomp{"no filter": nil, "filter": harmless(), "childless": childless()} {
			t.Run(name, func(t *testing.T) {
				f, _ := watched(t, "leak", func(s *specs.Spec) {
					s.Process.Capabilities, s.Process.NoNewPrivileges, s.Linux.Seccomp = caps, false, filter
				}, 0)
				if f.one("reached") != "0" || f.one("attached") != "0" {
					t.Errorf("reached %s, attached %s", f.one("reached"), f.one("attached"))
				}
			})
		}
	})
}

// Two hundred execs, many at once, leave nothing: no process, no descriptor, no mount, no
// file, no key.
func TestExecLeavesNothing(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, probeArgs("hold"))
		b.must("run", "-d", "c1")
		s, _ := b.state("c1")
		look := func() string {
			procs := read(t, "/sys/fs/cgroup/husk-c1/cgroup.procs")
			mounts, inside := read(t, "/proc/self/mountinfo"), read(t, fmt.Sprintf("/proc/%d/mountinfo", s.Pid))
			files, _ := os.ReadDir("/run/husk/c1")
			keys := read(t, "/proc/keys")
			return fmt.Sprintf("%s%s%s%v%d", procs, mounts, inside, files, strings.Count(string(keys), "_ses.c1"))
		}
		b.must("exec", "c1", "/bin/true")
		before := look()
		var all sync.WaitGroup
		for k := range 8 {
			all.Go(func() {
				for i := range 25 {
					if r := b.husk("exec", "c1", "/bin/sh", "-c", fmt.Sprintf("exit %d", k+i)); r.code != k+i {
						t.Errorf("status %d instead of %d: %s", r.code, k+i, r.stderr)
					}
				}
			})
		}
		all.Wait()
		if after := look(); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
		b.must("delete", "-f", "c1")
	})
}

// Exec while the container ends, is paused or deleted: it is executed, or it is not and
// says so; it never hangs, and nothing of it outlives the container.
func TestFaultExecRaces(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, probeArgs("hold"))
		for name, against := range map[string][][]string{
			"kill":   {{"kill", "c1", "KILL"}},
			"delete": {{"delete", "-f", "c1"}},
			"pause":  {{"pause", "c1"}, {"resume", "c1"}, {"pause", "c1"}, {"resume", "c1"}},
			"all":    {{"kill", "--all", "c1", "KILL"}},
		} {
			t.Run(name, func(t *testing.T) {
				for end := time.Now().Add(raceTime() / 2); time.Now().Before(end); {
					b.must("run", "-d", "c1")
					var all sync.WaitGroup
					for range 4 {
						all.Go(func() {
							r := b.husk("exec", "c1", "/bin/true")
							if !slices.Contains([]int{0, 137, 255}, r.code) || r.took > patience(5*time.Second) {
								t.Errorf("status %d after %v: %s", r.code, r.took, r.stderr)
							}
							if r.code == 255 && !containsAny(r.stderr, []string{"not running", "does not exist", "paused container"}) {
								t.Errorf("unclear: %s", r.stderr)
							}
						})
					}
					for _, args := range against {
						b.husk(args...)
					}
					all.Wait()
					if r := b.husk("delete", "-f", "c1"); r.code != 0 {
						t.Fatal(r.stderr)
					}
				}
			})
		}
	})
}

// A caller is the subreaper of its own, and gets the process itself.
func TestExecReparents(t *testing.T) {
	box(t, func(t *testing.T) {
		b := newBundle(t, probeArgs("hold"))
		b.must("run", "-d", "c1")
		must(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
		defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
		pidFile := b.dir + "/pid"
		b.must("exec", "-d", "--pid-file", pidFile, "c1", "/bin/sh", "-c", "exit 5")
		var pid int
		fmt.Sscan(string(read(t, pidFile)), &pid)
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		for err == unix.EINTR {
			got, err = unix.Wait4(-1, &status, 0, nil)
		}
		if got != pid || status.ExitStatus() != 5 || err != nil {
			t.Errorf("reaped %d with status %d, %v; want %d with 5", got, status.ExitStatus(), err, pid)
		}
		b.must("delete", "-f", "c1")
	})
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
