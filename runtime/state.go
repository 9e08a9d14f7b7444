package runtime

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/huskrun/husk/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// StatusPaused is the status, beside those of the spec, of a container whose cgroup is frozen.
const StatusPaused specs.ContainerState = "paused"

// State describes a container, as OCI runtime-spec, runtime.md, "State" asks, in the
// shape and order of runc's document.
type State struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	PID         int                  `json:"pid"` // 0 when stopped
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

// MarshalJSON writes the document without reflection, which a command that lives for a
// millisecond would feel.
func (s *State) MarshalJSON() ([]byte, error) {
	w := &jsonWriter{}
	w.object(func() { s.members(w) })
	return w.b, nil
}

func (s *State) members(w *jsonWriter) {
	w.text("ociVersion", s.Version)
	w.text("id", s.ID)
	w.num("pid", s.PID)
	w.text("status", string(s.Status))
	w.text("bundle", s.Bundle)
	w.text("rootfs", s.Rootfs)
	w.text("created", s.Created.Format(time.RFC3339Nano))
	w.texts("annotations", s.Annotations)
	w.text("owner", s.Owner)
}

// State returns the state of a container. It takes no lock and asks the kernel, not the
// record, whether processes live: what it says holds after any crash, and when pids
// have been reused.
func (r *Runtime) State(id string) (*State, error) {
	s, err := r.state(id)
	return s, wrap("state", id, err)
}

func (r *Runtime) state(id string) (*State, error) {
	e, rec, err := r.find(id)
	if err != nil {
		return nil, err
	}
	defer e.close()
	return rec.state(e), nil
}

// List returns the states of all containers, ordered by id. Directories without a
// record, which a killed create or delete may leave for a moment, are passed over.
func (r *Runtime) List() ([]*State, error) {
	root, err := r.openRoot(false)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("list", "", err)
	}
	defer closeAll([]int{root})
	names, err := readDir(root)
	if err != nil {
		return nil, wrap("list", "", err)
	}
	slices.Sort(names)
	var states []*State
	for _, name := range names {
		if checkID(name) != nil {
			continue
		}
		switch s, err := r.state(name); {
		case err == nil:
			states = append(states, s)
		case !errors.Is(err, ErrNotExist) && !errors.Is(err, unix.ENOTDIR):
			r.warn(wrap("list", name, err).Error())
		}
	}
	return states, nil
}

func (rec *record) state(e *entry) *State {
	s := &State{
		Version: rec.OCIVersion, ID: rec.ID, Status: rec.status(e), Bundle: rec.Bundle, Rootfs: rec.Rootfs,
		Created: rec.Created, Annotations: rec.Annotations, Owner: owner(rec.Owner),
	}
	if s.Status != specs.StateStopped && s.Status != specs.StateCreating {
		s.PID = rec.Init.PID
	}
	return s
}

func (rec *record) status(e *entry) specs.ContainerState {
	switch {
	case rec.Phase == phaseCreating && e.creating(rec):
		return specs.StateCreating
	case rec.Phase == phaseCreating || !rec.running():
		return specs.StateStopped
	case rec.Cgroup != "" && frozen(rec.Cgroup):
		return StatusPaused
	case e.initLocked():
		return specs.StateCreated
	}
	return specs.StateRunning
}

// running says whether the init lives. From another PID namespace its number tells
// nothing, but the cgroup, if there is one, tells whether somebody lives in it.
func (rec *record) running() bool {
	if !rec.Init.foreign() {
		return rec.Init.alive()
	}
	g, err := cgroups.Open(rec.Cgroup)
	if rec.Cgroup == "" || err != nil {
		return rec.Cgroup == ""
	}
	defer g.Close()
	return g.Populated()
}

// creating says whether the creator of a record in phase creating is still at it.
func (e *entry) creating(rec *record) bool {
	return rec.Creator.alive() || rec.Creator.foreign() && e.locked()
}

func frozen(path string) bool {
	g, err := cgroups.Open(path)
	if err != nil {
		return false
	}
	defer g.Close()
	return g.Frozen()
}

// hookState is the state document of a hook, to which the pid is still to be added.
func (rec *record) hookState(status specs.ContainerState) []byte {
	return hookState(rec.OCIVersion, rec.ID, status, rec.Bundle, rec.Annotations)
}

// owner names the user who made the container. Only /etc/passwd is asked: a lookup
// through the name service would cost every state, and load libraries.
func owner(uid int) string {
	if uid == 0 {
		return "root"
	}
	if b, err := os.ReadFile("/etc/passwd"); err == nil {
		for line := range strings.Lines(string(b)) {
			f := strings.Split(line, ":")
			if len(f) > 2 && f[2] == strconv.Itoa(uid) {
				return f[0]
			}
		}
	}
	return strconv.Itoa(uid)
}
