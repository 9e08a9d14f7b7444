package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/huskrun/husk/runtime"
)

var errSample = &runtime.Error{
	Op: "create", ID: "c1", Field: "/mounts/3", Path: "/data",
	Err: &os.PathError{Op: "bind", Path: "/srv/data", Err: syscall.ENOENT}, Hint: "make it",
}

// report returns what an error leaves in the log and on standard error.
func report(t *testing.T, format string, debug bool, err error) (log, stderr string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	var out bytes.Buffer
	a := &app{stderr: &out, log: path, logFormat: format, debug: debug}
	a.trace("create", []string{"c1"})
	a.report(err)
	b, rerr := os.ReadFile(path)
	if rerr != nil {
		t.Fatal(rerr)
	}
	return string(b), out.String()
}

func TestReport(t *testing.T) {
	log, stderr := report(t, "json", false, errSample)
	want := "husk: error: create c1: /mounts/3 (/data): bind /srv/data: no such file or directory\nhusk: hint: make it\n"
	if stderr != want {
		t.Errorf("stderr:\n%s", stderr)
	}
	stamp := regexp.MustCompile(`"time":"[^"]*"`)
	got := stamp.ReplaceAllString(log, `"time":"T"`)
	want = `{"level":"error","msg":"create c1: /mounts/3 (/data): bind /srv/data: no such file or directory","time":"T",` +
		`"code":"ENOENT","op":"create","field":"/mounts/3","path":"/data","hint":"make it"}` + "\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// containerd's shim: every line is decoded into these fields, time as RFC 3339, and
// the last one whose level is exactly "error" counts. One bad line loses them all.
func containerd(log string) (msg string, err error) {
	dec := json.NewDecoder(strings.NewReader(log))
	for dec.More() {
		var e struct {
			Level string
			Msg   string
			Time  time.Time
		}
		if err := dec.Decode(&e); err != nil {
			return "", err
		}
		if e.Level == "error" {
			msg = strings.TrimSpace(e.Msg)
		}
	}
	return msg, nil
}

// Podman: the whole file is one JSON value.
func podman(log string) (msg string, err error) {
	var e struct {
		Level string `json:"level,omitempty"`
		Msg   string `json:"msg,omitempty"`
		Time  string `json:"time,omitempty"`
	}
	err = json.Unmarshal([]byte(log), &e)
	return e.Msg, err
}

func TestEnginesReadTheLog(t *testing.T) {
	errs := []error{
		errSample,
		errors.New("two\nlines and \"quotes\" \x00\xff"),
		usage("", "no"),
		runtime.ErrNotExist,
	}
	for _, err := range errs {
		log, _ := report(t, "json", false, err)
		for name, read := range map[string]func(string) (string, error){"containerd": containerd, "podman": podman} {
			msg, rerr := read(log)
			if want := strings.ToValidUTF8(err.Error(), "\ufffd"); rerr != nil || msg != want {
				t.Errorf("%s reads %q (%v) from %s", name, msg, rerr, log)
			}
		}
	}
	// Debug entries come first; containerd takes the last error.
	log, _ := report(t, "json", true, errSample)
	if msg, err := containerd(log); err != nil || msg != errSample.Error() || !strings.Contains(log, `"level":"debug"`) {
		t.Errorf("%q, %v", msg, err)
	}
}

// The text is logrus's: conmon's users grep it.
func TestTextLog(t *testing.T) {
	log, _ := report(t, "text", false, errSample)
	form := regexp.MustCompile(`^time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)" level=error msg="create c1: .*" code="ENOENT" op="create" field="/mounts/3" path="/data" hint="make it"\n$`)
	if !form.MatchString(log) {
		t.Error(log)
	}
}

// A log that cannot be written does not hide the error.
func TestUnwritableLog(t *testing.T) {
	var out bytes.Buffer
	a := &app{stderr: &out, log: "/does/not/exist", logFormat: "json"}
	a.report(errSample)
	if s := out.String(); !strings.HasPrefix(s, "husk: error: create c1") || !strings.Contains(s, "husk: error: log: open /does/not/exist") {
		t.Error(s)
	}
}

func TestCodes(t *testing.T) {
	for want, err := range map[string]error{
		"not-exist":   &runtime.Error{Err: runtime.ErrNotExist},
		"exist":       &runtime.Error{Err: runtime.ErrExist},
		"not-running": &runtime.Error{Err: runtime.ErrNotRunning},
		"running":     &runtime.Error{Err: runtime.ErrRunning},
		"stopped":     &runtime.Error{Err: runtime.ErrStopped},
		"busy":        &runtime.Error{Err: runtime.ErrBusy},
		"usage":       usage("", "no"),
		"EPERM":       fmt.Errorf("deep: %w", syscall.EPERM),
		"":            errors.New("something"),
	} {
		if got := code(err); got != want {
			t.Errorf("%v has code %q, want %q", err, got, want)
		}
	}
}

// A process that could not be executed gives the status that a shell would give.
func TestExitStatus(t *testing.T) {
	if status, _, _ := call(t, "state", "gone"); status != 1 {
		t.Errorf("error: %d", status)
	}
	for want, err := range map[int]error{
		1:   errSample,
		127: &runtime.Error{Err: syscall.ENOENT, Exit: 127},
		126: fmt.Errorf("more: %w", &runtime.Error{Err: syscall.EACCES, Exit: 126}),
		3:   fmt.Errorf("%w %q", errUnknown, "x"),
	} {
		if got := exitStatus(err); got != want {
			t.Errorf("%v: status %d, want %d", err, got, want)
		}
	}
}

func TestDeniedRoot(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "")
	for root, want := range map[string]bool{"": true, "/elsewhere": false} {
		var out bytes.Buffer
		a := &app{stderr: &out, root: root}
		a.report(&runtime.Error{Op: "list", Err: &os.PathError{Op: "open state root", Path: "/run/husk", Err: syscall.EACCES}})
		if got := strings.Contains(out.String(), "husk: hint: an ordinary user"); got != want {
			t.Errorf("--root %q: %s", root, out.String())
		}
	}
}
