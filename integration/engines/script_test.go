package engines

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/huskrun/husk/integration/harness"
	"github.com/rogpeppe/go-internal/testscript"
)

// noShares is for ctr, which otherwise sets them whether there is a controller or not.
func noShares() []string {
	if hasController("cpu") {
		return nil
	}
	return []string{"--cpu-shares", "0"}
}

// hasController says whether the box's cgroups have a controller.
func hasController(name string) bool {
	data, _ := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	return slices.Contains(strings.Fields(string(data)), name)
}

type script = testscript.TestScript

// commandTimeout ends a command of an engine that hangs.
const commandTimeout = 60 * time.Second

func (e engine) runScript(t *testing.T, s setting, file string, daemon *service) {
	testscript.RunT(scriptT{t}, testscript.Params{
		Files: []string{file},
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", os.Getenv("PATH"))
			env.Setenv("HOME", os.Getenv("HOME"))
			env.Setenv("TMPDIR", "/tmp") // also for them
			env.Setenv("ENGINE", e.command)
			env.Setenv("REMOVE", e.remove)
			env.Setenv("RUNTIME", s.runtime)
			env.Setenv("DRIVER", s.driver)
			// Also for users of containers.
			return errors.Join(os.Chmod(env.WorkDir, 0o755), os.Chmod(filepath.Dir(env.WorkDir), 0o755))
		},
		Condition: func(cond string) (bool, error) {
			name, arg, _ := strings.Cut(cond, ":")
			switch name {
			case "docker":
				return e.command == "docker", nil
			case "podman":
				return e.command == "podman" || e.command == "rootless", nil
			case "cri-o":
				return e.name == name, nil
			case "husk", "runc":
				return s.runtime == name, nil
			case "cgroupfs", "systemd":
				return s.driver == name, nil
			case "controller":
				return hasController(arg), nil
			}
			return false, errors.New("unknown condition " + cond)
		},
		Cmds: map[string]func(ts *script, neg bool, args []string){
			"engine": cmdEngine,
			"code":   cmdCode,
			"until":  cmdUntil,
			"tty":    cmdTTY,
			"remove": cmdRemove,
			"restart": func(ts *script, neg bool, args []string) {
				ts.Check(daemon.stop())
				ts.Check(daemon.start())
			},
			"capture": cmdCapture,
		},
	})
}

// scriptT runs the one script as the body of a test.
type scriptT struct{ *testing.T }

func (s scriptT) Run(_ string, f func(testscript.T)) { f(s) }
func (s scriptT) Parallel()                          {}
func (s scriptT) Verbose() bool                      { return false }

// call runs the engine's command line and returns its exit status.
func call(ts *script, args []string) int {
	return status(ts, ts.Exec("timeout", engineArgs(ts, args)...))
}

func engineArgs(ts *script, args []string) []string {
	if ts.Getenv("ENGINE") == "ctr" && args[0] == "run" {
		run := []string{"run", "--runc-binary", ts.Getenv("RUNTIME")}
		if ts.Getenv("DRIVER") == "systemd" {
			run = append(run, "--runc-systemd-cgroup", "--cgroup", "system.slice:ctr:box")
		}
		args = slices.Concat(run, noShares(), args[1:])
	}
	return append([]string{"-k", "5", seconds(commandTimeout), ts.Getenv("ENGINE")}, args...)
}

// seconds is for timeout(1).
func seconds(d time.Duration) string { return strconv.Itoa(int(harness.Patience(d) / time.Second)) }

func status(ts *script, err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if exit.ExitCode() == 124 {
			ts.Fatalf("took too long")
		}
		return exit.ExitCode()
	}
	ts.Check(err)
	return 0
}

// cmdEngine: [!] engine ARGS...
func cmdEngine(ts *script, neg bool, args []string) {
	switch code := call(ts, args); {
	case code != 0 && !neg:
		ts.Fatalf("exit status %d", code)
	case code == 0 && neg:
		ts.Fatalf("succeeded")
	}
}

// cmdCode: code N engine ARGS...
func cmdCode(ts *script, neg bool, args []string) {
	if len(args) < 2 || args[1] != "engine" {
		ts.Fatalf("usage: code N engine ARGS...")
	}
	if code := call(ts, args[2:]); strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit status %d, not %s", code, args[0])
	}
}

// cmdUntil repeats a command until its output is as wanted, 15 seconds at most:
// until REGEXP engine ARGS...
func cmdUntil(ts *script, neg bool, args []string) {
	if len(args) < 2 || args[1] != "engine" {
		ts.Fatalf("usage: until REGEXP engine ARGS...")
	}
	want := regexp.MustCompile("(?m)" + args[0])
	deadline := time.Now().Add(harness.Patience(15 * time.Second))
	for {
		out, err := exec.Command("timeout", engineArgs(ts, args[2:])...).CombinedOutput()
		if want.Match(out) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("still not (%v):\n%s", err, out)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// cmdTTY runs the engine's command line on a terminal: [!] tty ARGS...
func cmdTTY(ts *script, neg bool, args []string) {
	var quoted []string
	for _, a := range append([]string{"timeout"}, engineArgs(ts, args)...) {
		quoted = append(quoted, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	code := status(ts, ts.Exec("script", "-qec", strings.Join(quoted, " "), "/dev/null"))
	if (code != 0) != neg {
		ts.Fatalf("exit status %d", code)
	}
}

// cmdRemove kills and removes containers: remove NAME...
func cmdRemove(ts *script, neg bool, args []string) {
	cmdEngine(ts, false, append(strings.Fields(ts.Getenv("REMOVE"))[1:], args...))
}

// cmdCapture sets a variable to what a group matches in the last output:
// capture VARIABLE REGEXP
func cmdCapture(ts *script, neg bool, args []string) {
	m := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if m == nil {
		ts.Fatalf("no match")
	}
	ts.Setenv(args[0], m[len(m)-1])
}
