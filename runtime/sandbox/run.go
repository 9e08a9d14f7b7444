package sandbox

import (
	jsonv1 "encoding/json"
	"encoding/json/v2"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/huskrun/husk/rootfs/changes"
	"github.com/huskrun/husk/runtime"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Result says how a job came to its end.
type Result struct {
	*runtime.Report
	Status int    // what husk sandbox exits with
	Reason string // why husk ended it, "" if it ended by itself

	Changed *changes.Count // outside of the workspace; nil: not known
}

// Config is the text of the config.json.
func (j *Job) Config(indent ...json.Options) ([]byte, error) {
	return json.Marshal(j.Spec, append(indent, jsonv1.DefaultOptionsV1())...)
}

// Interactive says whether the job may have a terminal. One whose output is looked at has
// pipes.
func (j *Job) Interactive() bool { return !j.o.counts() }

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
	res = &Result{Status: StatusFailed}
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
	if o.Config, err = j.Config(); err != nil {
		return res, failed(err)
	}
	w := &watch{r: r, id: id, o: j.o}
	o.Started = w.begin
	if err := w.connect(); err != nil {
		return res, failed(err)
	}
	res.Status, err = r.Run(id, j.workspace, o)
	res.Reason = w.end()
	if err != nil {
		e := failed(err)
		res.Status = e.Exit
		return res, e
	}
	j.judge(res)
	if err := j.keep(c, res); err != nil {
		e := failed(err)
		res.Status = e.Exit
		return res, e
	}
	return res, nil
}

// judge decides what the end means.
func (j *Job) judge(res *Result) {
	if res.Reason != "" {
		res.Status = StatusEnded
		return
	}
	s := res.Report.Stats
	if s == nil || s.Memory == nil || s.Memory.Events.OOMKill == 0 || res.Status != 128+int(unix.SIGKILL) {
		return
	}
	limit, peak := "a memory limit above the job's", ""
	if s.Memory.Limit != math.MaxUint64 {
		limit = "the memory limit of " + Bytes(s.Memory.Limit).String()
	}
	if s.Memory.Peak != nil {
		peak = fmt.Sprintf("; the peak was %s", Bytes(*s.Memory.Peak))
	}
	res.Reason = "killed by " + limit + peak
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
