package sandbox

import (
	"encoding/json/v2"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/huskrun/husk/runtime"
	"golang.org/x/sys/unix"
)

// report is what --report writes.
type report struct {
	Command  []string        `json:"command"`
	Root     string          `json:"root"`   // the root file system: a directory, or an image's digest
	Status   int             `json:"status"` // that husk exits with
	Reason   string          `json:"reason"` // why husk or the kernel ended the job, "" if it ended by itself
	Loose    []string        `json:"loose"`
	LeftOut  []string        `json:"leftOut"`
	Landlock bool            `json:"landlock"` // it confines what the job may write to
	Changed  *changed        `json:"changed"`  // outside of the workspace, null: not known
	Used     *runtime.Report `json:"used"`
}

// changed is in a report how much the job has changed.
type changed struct {
	Files   uint64 `json:"files"` // made or written to
	Removed uint64 `json:"removed"`
	Bytes   uint64 `json:"bytes"` // that the files take
}

// findReport looks where it is to be.
func (b *builder) findReport() (err error) {
	if b.o.Report != "" {
		b.report, err = b.real("report", b.o.Report)
	}
	return err
}

// openReport makes the file: whether that is possible should not be known too late.
func (j *Job) openReport() (*os.File, error) {
	if j.report == "" {
		return nil, nil
	}
	file, err := openReal(j.report, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, bad("report", "name a file that can be written", "%w", err)
	}
	return file, nil
}

// write writes the report of a job that has ended, or failed to begin.
func (j *Job) write(to *os.File, res *Result, failure error) error {
	if to == nil {
		return nil
	}
	r := report{
		Command: j.Spec.Process.Args, Root: j.root(), Status: res.Status, Reason: res.Reason,
		Loose: append([]string{}, j.Loose...), LeftOut: append([]string{}, j.LeftOut...), // [], not null
		Landlock: j.Spec.Annotations[runtime.AnnotationLandlock] != "",
		Changed:  (*changed)(res.Changed), Used: res.Report,
	}
	if failure != nil {
		r.Reason = failure.Error()
	}
	text, err := json.Marshal(r)
	if err == nil {
		to, err = j.again(to)
	}
	if err == nil {
		_, err = to.Write(append(text, '\n'))
	}
	if err != nil {
		return bad("report", "name a file on a disk with free space", "%w", err)
	}
	return to.Close()
}

// again empties the file, or makes it anew where the job has put another in its place.
func (j *Job) again(file *os.File) (*os.File, error) {
	before, err := file.Stat()
	if err != nil || !before.Mode().IsRegular() {
		return file, err
	}
	if now, err := os.Lstat(j.report); err == nil && os.SameFile(before, now) {
		return file, file.Truncate(0)
	}
	_ = file.Close()
	dir, err := openDir(filepath.Dir(j.report))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	name := filepath.Base(j.report)
	if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil && err != unix.ENOENT {
		return nil, &os.PathError{Op: "remove", Path: j.report, Err: err}
	}
	return openReal(j.report, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
}

// root names what the job sees as "/".
func (j *Job) root() string {
	switch {
	case j.Image != nil:
		return j.Image.Digest
	case j.o.Rootfs != "":
		return j.o.Rootfs
	}
	return "/"
}

// Summarized says whether a summary is wanted.
func (j *Job) Summarized() bool { return j.o.Summary }

// Summary writes a few lines about a job that has ended: what is known of it.
func (j *Job) Summary(to io.Writer, res *Result) error {
	w := tabwriter.NewWriter(to, 0, 1, 2, ' ', 0)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "sandbox\t%s\t%s\n", what, fmt.Sprintf(format, args...))
	}
	line("command", "%s", strings.Join(j.Spec.Process.Args, " "))
	line("status", "%s", strings.TrimSpace(strconv.Itoa(res.Status)+" "+res.Reason))
	line("wall", "%v", res.Wall.Round(time.Millisecond))
	if s := res.Stats; s != nil {
		if c := s.CPU; c != nil {
			line("cpu", "%v, %v in the kernel, %v throttled", usec(c.UsageUsec), usec(c.SystemUsec), usec(c.ThrottledUsec))
		}
		if m := s.Memory; m != nil && m.Peak != nil {
			line("memory", "%s at most, %d killed", Bytes(*m.Peak>>10<<10), m.Events.OOMKill)
		}
		if p := s.Pids; p != nil && p.Peak != nil {
			line("pids", "%d at most", *p.Peak)
		}
		if s.IO != nil {
			var read, written uint64
			for _, d := range s.IO.Devices {
				read, written = read+d.ReadBytes, written+d.WriteBytes
			}
			line("io", "%s read, %s written", Bytes(read), Bytes(written))
		}
	}
	if c := res.Changed; c != nil {
		line("changed", "%d files of %s, %d removed, outside of the workspace", c.Files, Bytes(c.Bytes), c.Removed)
	}
	for _, text := range j.Loose {
		line("loose", "%s", text)
	}
	return w.Flush()
}

func usec(n uint64) time.Duration {
	return (time.Duration(n) * time.Microsecond).Round(time.Millisecond)
}
