package runtime

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func shell(script string) *hookCall {
	return &hookCall{path: "/bin/sh", args: []string{"sh", "-c", script}, state: []byte(`{"id":"x"}`)}
}

func TestHookGetsStateAndExactEnvironment(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	// As create does with what its caller left open.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	h := shell("exec > " + out + "; cat; echo; tr '\\0' '\\n' < /proc/self/environ; ls /proc/self/fd")
	h.env = []string{"A=b"}
	if err := runHook(h); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(out)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	// Descriptors 0, 1, 2 and the one that ls opens.
	if want := []string{`{"id":"x"}`, "A=b", "0", "1", "2", "3"}; !slices.Equal(lines, want) {
		t.Errorf("%q", lines)
	}
}

func TestHookFailures(t *testing.T) {
	for _, c := range []struct {
		call *hookCall
		want string
	}{
		{shell("echo reason >&2; exit 3"), "hook /bin/sh: exit status 3: reason"},
		{shell("kill -9 $$"), "hook /bin/sh: killed by signal 9"},
		{&hookCall{path: "/nonexistent"}, "run hook /nonexistent: no such file or directory"},
		{shell("head -c 100000 /dev/zero | tr '\\0' x; exit 1"), "hook /bin/sh: exit status 1: xxxx"},
	} {
		err := runHook(c.call)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
		if err != nil && len(err.Error()) > 2*hookOutputLimit {
			t.Errorf("error of %d bytes", len(err.Error()))
		}
	}
}

func TestHookTimeoutKillsTheGroup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "survivor")
	h := shell("(sleep 1; touch " + file + ") & sleep 60")
	h.timeout = 200 * time.Millisecond
	begin := time.Now()
	err := runHook(h)
	if err == nil || !strings.Contains(err.Error(), "killed after its timeout of 200ms") {
		t.Error(err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("took %s", d)
	}
	time.Sleep(1100 * time.Millisecond)
	if _, err := os.Stat(file); err == nil {
		t.Error("a child of the hook outlived its timeout")
	}
}

func TestHookThatReadsNothing(t *testing.T) {
	h := shell("true")
	h.state = []byte(strings.Repeat("x", 1<<20))
	if err := runHook(h); err != nil {
		t.Error(err)
	}
}

func TestRunHooksStopsAtTheFirstFailure(t *testing.T) {
	file := filepath.Join(t.TempDir(), "second")
	hooks := []specs.Hook{
		{Path: "/bin/false"},
		{Path: "/bin/sh", Args: []string{"sh", "-c", "touch " + file}},
	}
	err := runHooks("prestart", hooks, "/", []byte("{}"))
	e, ok := err.(*Error)
	if !ok || e.Field != "/hooks/prestart/0" {
		t.Errorf("%#v", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the second hook ran")
	}
}

func TestAppendPid(t *testing.T) {
	state := hookState("1.3.0", "x", specs.StateCreating, "/b", nil)
	want := `{"ociVersion":"1.3.0","id":"x","status":"creating","bundle":"/b","pid":7}`
	if got := string(appendPid(state, 7)); got != want {
		t.Errorf("%s", got)
	}
	if got := appendPid(state, 0); string(got) != string(state) {
		t.Errorf("%s", got)
	}
}
