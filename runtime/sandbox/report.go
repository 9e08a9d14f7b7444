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

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/runtime"
	"golang.org/x/sys/unix"
)

// report is what --report writes.
type report struct {
	Command  []string        `json:"command"`
	Root     string          `json:"root"`   // the root file system: a directory, or an image's digest
	Status   int             `json:"status"` // that husk exits with
	End      string          `json:"end"`    // exit, signal, memory, filter, failed, or the flag that ended the job
	Reason   string          `json:"reason"` // the same in words, "" if it exited
	Loose    []string        `json:"loose"`
	LeftOut  []string        `json:"leftOut"`
	Landlock bool            `json:"landlock"` // it confines what the job may write to
	Changed  *changed        `json:"changed"`  // outside of the workspace, null: not known
	Unknown  []string        `json:"unknown"`  // figures that are null, and why
	Used     *runtime.Report `json:"used"`
}

// unknown lists what cannot be told of a job that has ended.
func (j *Job) unknown(res *Result) []string {
	list := []string{}
	if res.Report == nil || !res.Ended {
		return list
	}
	miss := func(missing bool, what, why string) {
		if missing {
			list = append(list, what+": "+why)
		}
	}
	s := res.Stats
	if s == nil {
		s = &cgroups.Stats{}
	}
	const controller = "its controller is not available, or nothing has enabled it, as a limit would"
	miss(s.CPU == nil, "cpu", "the job had no cgroup")
	miss(s.Memory == nil, "memory", controller)
	miss(s.Pids == nil, "pids", controller)
	miss(s.IO == nil, "io", controller)
	miss(res.Network == nil && j.o.Net == "host", "network", "it was the host's, which others use too")
	miss(res.Network == nil && j.o.Net != "host", "network", "the kernel does not say")
	miss(!res.Counted && j.o.Seccomp == "unconfined", "denied calls", "there was no filter")
	miss(!res.Counted && j.o.Seccomp != "unconfined", "denied calls", "the filter of the job, or one that husk is under, has another listener")
	miss(res.Changed == nil, "changed", "what the job has written could not be read")
	return list
}

// reports says whether anybody wants to know what was used.
func (j *Job) reports() bool { return j.report != "" || j.o.Summary }

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
		Command: j.Spec.Process.Args, Root: j.root(), Status: res.Status, End: res.End, Reason: res.Reason,
		Loose: append([]string{}, j.Loose...), LeftOut: append([]string{}, j.LeftOut...), // [], not null
		Landlock: j.Spec.Annotations[runtime.AnnotationLandlock] != "",
		Changed:  (*changed)(res.Changed), Unknown: j.unknown(res), Used: res.Report,
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
	if res.Stats != nil {
		summarize(res.Stats, line)
	}
	if n := res.Network; n != nil {
		line("network", "%s received, %s sent", Bytes(n.Received), Bytes(n.Sent))
	}
	if res.Counted && len(res.Denied) > 0 {
		var calls []string
		for _, d := range res.Denied {
			calls = append(calls, fmt.Sprintf("%s %d×", d.Call, d.Count))
		}
		line("denied", "%s", strings.Join(calls, ", "))
	}
	if c := res.Changed; c != nil {
		line("changed", "%d files of %s, %d removed, outside of the workspace", c.Files, Bytes(c.Bytes), c.Removed)
	}
	if list := j.unknown(res); len(list) > 0 {
		for i, text := range list {
			list[i], _, _ = strings.Cut(text, ":")
		}
		line("unknown", "%s", strings.Join(list, ", "))
	}
	for _, text := range j.Loose {
		line("loose", "%s", text)
	}
	return w.Flush()
}

// summarize says what the cgroup has counted.
func summarize(s *cgroups.Stats, line func(what, format string, args ...any)) {
	if c := s.CPU; c != nil {
		throttled := ""
		if c.Bandwidth {
			throttled = fmt.Sprintf(", %v throttled", usec(c.ThrottledUsec))
		}
		line("cpu", "%v, %v in the kernel%s", usec(c.UsageUsec), usec(c.SystemUsec), throttled)
	}
	if m := s.Memory; m != nil {
		peak := ""
		if m.Peak != nil {
			peak = Bytes(*m.Peak>>10<<10).String() + " at most, "
		}
		line("memory", "%s%d killed for want of it", peak, m.Events.OOMKill)
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

func usec(n uint64) time.Duration {
	return (time.Duration(n) * time.Microsecond).Round(time.Millisecond)
}
