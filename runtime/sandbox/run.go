package sandbox

import (
	jsonv1 "encoding/json"
	"encoding/json/v2"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/rootfs/changes"
	"github.com/huskrun/husk/runtime"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Result says how a job came to its end.
type Result struct {
	*runtime.Report
	Status int    // what husk sandbox exits with
	End    string // one of those below, or the name of the flag for which husk has ended it
	Reason string // the same in words, "" if it exited

	Changed *changes.Count // outside of the workspace; nil: not known
}

// Ends of a job besides those of --timeout, --idle-timeout and --output-limit.
const (
	EndExit   = "exit"   // its command has ended by itself
	EndSignal = "signal" // that somebody sent, perhaps to husk, which passed it on
	EndMemory = "memory" // killed by the kernel, for want of it
	EndFilter = "filter" // killed by its filter for a system call
	EndFailed = "failed" // it never began, or husk could not do its own part
)

// Config is the text of the config.json.
func (j *Job) Config(indent ...json.Options) ([]byte, error) {
	return json.Marshal(j.Spec, append(indent, jsonv1.DefaultOptionsV1())...)
}

// Interactive says whether the job may have a terminal. One whose output is looked at has
// pipes.
func (j *Job) Interactive() bool { return !j.o.counts() }

// Through is the way to our terminal for what the job writes to its own.
func (j *Job) Through(to *os.File) io.Writer { return j.progress.through(to) }

// prefix begins the names of containers; the pid of the husk that has one follows.
const prefix = "sandbox-"

// Run runs the job and removes whatever it has left, and what a husk that was killed did.
// The terminal, of a job that has one, is given to take.
func (j *Job) Run(r *runtime.Runtime, take func(*os.File) error) (res *Result, err error) {
	if err := checkStreams(); err != nil {
		return nil, err
	}
	report, err := j.openReport()
	if err != nil {
		return nil, err
	}
	res, err = j.run(r, take)
	if werr := j.write(report, res, err); err == nil {
		err = werr
	}
	return res, err
}

// checkStreams refuses a directory, from which ".." leads to all of the host.
func checkStreams() error {
	for fd, name := range []string{"input", "output", "error"} {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return failed(fmt.Errorf("standard %s is a directory", name))
		}
	}
	return nil
}

func (j *Job) run(r *runtime.Runtime, take func(*os.File) error) (res *Result, err error) {
	res = &Result{Status: StatusFailed, End: EndFailed}
	j.sweep(r)
	if r.Cgroups == "" {
		ours := *r
		ours.Cgroups = j.cgroups
		r = &ours
	}
	id := prefix + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	for _, dir := range j.caches {
		if err := makeDir(dir); err != nil {
			return res, bad("cache", "name a directory that can be made", "%w", err)
		}
	}
	o := runtime.RunOptions{Tied: true, Ended: func(rep *runtime.Report) { res.Report = rep }}
	o.Files = j.addSecrets(r, id, j.outer)
	o.Terminal = take
	o.Net = j.net
	c, err := j.changes()
	if err != nil {
		return res, failed(err)
	}
	defer c.Close()
	if j.looksAtChanges() {
		o.Scratch = c.Take
	}
	o.CountDenied = j.reports()
	if o.Config, err = j.Config(); err != nil {
		return res, failed(err)
	}
	w := &watch{r: r, id: id, o: j.o, progress: j.progress, terminal: j.Spec.Process.Terminal}
	o.Started = w.begin
	if err := w.connect(); err != nil {
		return res, failed(err)
	}
	res.Status, err = r.Run(id, j.workspace, o)
	w.end()
	if err != nil {
		e := failed(err)
		res.Status = e.Exit
		return res, e
	}
	j.judge(res, w)
	if err := j.keep(c, res); err != nil {
		e := failed(err)
		res.Status, res.End = e.Exit, EndFailed
		return res, e
	}
	return res, nil
}

// judge decides what the end means.
func (j *Job) judge(res *Result, w *watch) {
	rep := res.Report
	switch {
	case w.ended != "":
		res.Status, res.End, res.Reason = StatusEnded, w.ended, "ended by --"+w.ended+": "+w.text
	case rep.Cause != nil && rep.Signal == unix.SIGKILL:
		res.End, res.Reason = EndMemory, outOfMemory(rep.Stats)
	case rep.Cause != nil:
		res.End, res.Reason = EndFilter, cause(rep.Cause)
	case rep.Signal != 0:
		res.End, res.Reason = EndSignal, "killed by "+unix.SignalName(rep.Signal)
	default:
		res.End = EndExit
	}
}

// cause is the reason behind an error, without what it is about.
func cause(err error) string {
	if e, ok := errors.AsType[*runtime.Error](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

func outOfMemory(s *cgroups.Stats) string {
	limit, peak := "a memory limit above the job's", ""
	if s.Memory.Limit != math.MaxUint64 {
		limit = "the memory limit of " + Bytes(s.Memory.Limit).String()
	}
	if s.Memory.Peak != nil {
		peak = fmt.Sprintf("; the peak was %s", Bytes(*s.Memory.Peak))
	}
	return "killed by " + limit + peak
}

// sweep removes what jobs have left whose husk was killed: they died with it.
func (j *Job) sweep(r *runtime.Runtime) {
	list, err := r.List()
	if err != nil {
		return // so will Run, with more to say
	}
	for _, s := range list {
		owner, _, _ := strings.Cut(strings.TrimPrefix(s.ID, prefix), "-")
		pid, err := strconv.Atoi(owner)
		if s.Annotations[annotation] == "" || err != nil || s.Status != specs.StateStopped || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		_ = r.Delete(s.ID, true)
	}
}
