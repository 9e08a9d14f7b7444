package main

import (
	"context"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/huskrun/husk/runtime"
)

// entry is one line of the --log file. containerd, Docker and Podman parse it:
// they take the msg of an entry whose level is "error", in lower case, and drop it
// all when the time is not RFC 3339. The keys after time are ours.
type entry struct {
	Level string `json:"level"`
	Msg   string `json:"msg"`
	Time  string `json:"time"`
	Code  string `json:"code,omitempty"`
	Op    string `json:"op,omitempty"`
	Field string `json:"field,omitempty"`
	Path  string `json:"path,omitempty"`
	Hint  string `json:"hint,omitempty"`

	Warnings []string `json:"warnings,omitempty"` // that came before the error
}

// report tells the user, and the log if there is one, why the command failed.
func (a *app) report(err error) {
	e := explain(err)
	if e.Hint == "" && a.rootDenied(err) {
		e.Hint = "an ordinary user keeps the state of containers below XDG_RUNTIME_DIR, which is not set, or where --root says"
	}
	fmt.Fprintf(a.stderr, "husk: error: %s\n", e.Msg)
	if e.Hint != "" {
		fmt.Fprintf(a.stderr, "husk: hint: %s\n", e.Hint)
	}
	e.Warnings = a.held
	a.append(e)
}

// rootDenied reports whether err is about the state root of the superuser, which
// somebody else got for want of a better one.
func (a *app) rootDenied(err error) bool {
	var pe *fs.PathError
	return a.root == "" && errors.As(err, &pe) && pe.Path == defaultRoot() && errors.Is(err, fs.ErrPermission)
}

// explain takes err apart.
func explain(err error) entry {
	e := entry{Level: "error", Msg: err.Error(), Code: code(err)}
	var re *runtime.Error
	var ue *usageError
	switch {
	case errors.As(err, &re):
		e.Op, e.Field, e.Path, e.Hint = re.Op, re.Field, re.Path, re.Hint
	case errors.As(err, &ue):
		e.Hint = ue.hint
	case errors.Is(err, errUnknown):
		e.Hint = "husk help lists the commands"
	}
	return e
}

// code names the cause in a word that does not change when the text does: that of
// an errno, or one of ours.
func code(err error) string {
	var errno syscall.Errno
	var ue *usageError
	switch {
	case errors.Is(err, runtime.ErrNotExist):
		return "not-exist"
	case errors.Is(err, runtime.ErrExist):
		return "exist"
	case errors.Is(err, runtime.ErrNotRunning):
		return "not-running"
	case errors.Is(err, runtime.ErrNotPaused):
		return "not-paused"
	case errors.Is(err, runtime.ErrRunning):
		return "running"
	case errors.Is(err, runtime.ErrStopped):
		return "stopped"
	case errors.Is(err, runtime.ErrBusy):
		return "busy"
	case errors.As(err, &ue), errors.Is(err, errUnknown):
		return "usage"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return ""
}

// trace logs the command line when --debug is given. Otherwise a command that fails
// logs one entry only: Podman reads the whole file as a single JSON value.
func (a *app) trace(name string, args []string) {
	if a.debug {
		a.append(entry{Level: "debug", Msg: "husk " + name + " " + strings.Join(args, " "), Op: name})
	}
}

// append writes e to the log. What fails here has no better place to be said than
// standard error.
func (a *app) append(e entry) {
	if a.log == "" {
		return
	}
	e.Time = time.Now().Format(time.RFC3339)
	line, err := e.line(a.logFormat)
	if err == nil {
		err = appendLine(a.log, line)
	}
	if err != nil {
		fmt.Fprintf(a.stderr, "husk: error: log: %v\n", err)
	}
}

// line formats e as logrus, which runc uses, would.
func (e *entry) line(format string) ([]byte, error) {
	if format == "json" {
		return json.Marshal(e, jsontext.AllowInvalidUTF8(true))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "time=%q level=%s msg=%q", e.Time, e.Level, e.Msg)
	for _, kv := range [...][2]string{{"code", e.Code}, {"op", e.Op}, {"field", e.Field}, {"path", e.Path}, {"hint", e.Hint}} {
		if kv[1] != "" {
			fmt.Fprintf(&b, " %s=%q", kv[0], kv[1])
		}
	}
	for _, w := range e.Warnings {
		fmt.Fprintf(&b, " warning=%q", w)
	}
	return []byte(b.String()), nil
}

// appendLine adds one line in one write, so that lines of several husks never mix.
func appendLine(path string, line []byte) error {
	f, err := openLog(path)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
}

// warner takes warnings. They are printed at once, unless there is a log: then an engine
// calls, whose create, run and exec have the container's own streams, and nothing but
// the container's output belongs there. So they wait for the end of the command: those
// of one that fails become a part of its entry.
type warner struct{ *app }

func (warner) Enabled(context.Context, slog.Level) bool { return true }

func (w warner) Handle(_ context.Context, r slog.Record) error {
	if w.log != "" {
		w.held = append(w.held, r.Message)
		return nil
	}
	_, err := fmt.Fprintf(w.stderr, "husk: warning: %s\n", r.Message)
	return err
}

// logWarnings logs those of a command that has succeeded.
func (a *app) logWarnings() {
	for _, text := range a.held {
		a.append(entry{Level: "warning", Msg: text})
	}
}

func (w warner) WithAttrs([]slog.Attr) slog.Handler { return w }
func (w warner) WithGroup(string) slog.Handler      { return w }
