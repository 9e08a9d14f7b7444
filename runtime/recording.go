package runtime

import (
	"encoding/json/jsontext"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/huskrun/husk/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// recordPatience is how long the last process of a container may take to leave its filter
// when all of them have been killed.
const recordPatience = 5 * time.Second

// profileRoom is more than a profile takes that allows every system call by name.
const profileRoom = 64 << 10

// Recording is one of a container's system calls, and the file for what comes of it.
type Recording struct {
	*seccomp.Recording
	out *output
}

// NewRecording prepares a recording, to be added to what a profile allows: that of a file
// as ReadProfile takes it, or none if base is empty. A path that Save could not write to
// is refused now, since a run may be long; "" is for a profile that is not to be saved.
func (r *Runtime) NewRecording(base, path string) (*Recording, error) {
	var profile []byte
	if base != "" {
		var err error
		if profile, err = ReadProfile(base); err != nil {
			return nil, wrap("record", "", err)
		}
	}
	rec, err := seccomp.NewRecording(profile, r.Seccomp)
	if err != nil {
		return nil, wrap("record", "", fieldError(err))
	}
	var out *output
	if path != "" {
		if out, err = newOutput("profile", path, int64(profileRoom+len(profile))); err != nil {
			return nil, wrap("record", "", err)
		}
	}
	return &Recording{rec, out}, nil
}

// Save writes the text of a profile to the path of the recording.
func (rec *Recording) Save(text []byte) error { return wrap("record", "", rec.out.write(text)) }

// Close gives up the place of the profile.
func (rec *Recording) Close() { rec.out.close() }

// Recorded is the profile that comes of a recording; what it cannot express is a warning.
func (r *Runtime) Recorded(rec *Recording) (*specs.LinuxSeccomp, error) {
	p, warnings, err := rec.Profile()
	for _, w := range warnings {
		r.warn(w)
	}
	return p, wrap("record", "", err)
}

// ReadProfile reads a seccomp profile: the file has it alone or is a config.json, whose
// directory may be named instead.
func ReadProfile(path string) (jsontext.Value, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path += "/config.json"
	}
	data, err := readConfig(path)
	if errors.Is(err, unix.ENOENT) {
		return nil, &Error{Err: err, Hint: "name a file with a profile, a config.json or its directory"}
	}
	if err != nil {
		return nil, err
	}
	c, bare := &Config{}, false
	d := newDecoder(data)
	d.object([]field{
		{"defaultAction", func(d *decoder) { d.skip(); bare = true }},
		{"linux", []field{{"seccomp", c.decodeSeccomp}}},
	})
	switch err := d.finish(); {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	case c.Seccomp != nil:
		return c.Seccomp, nil
	case bare:
		return data, nil
	}
	return nil, at(seccomp.Pointer, path, errors.New("is missing: the file has no seccomp profile"))
}

// Record runs a container as Run does, but for its seccomp profile: every system call of
// its process, and of what that makes, is noted in rec and then made. Only a container
// without detach can be recorded; it returns the process's exit status.
//
// The init's own calls after the filter are noted too: the profile that comes of it is
// loaded at the same place.
func (r *Runtime) Record(id, bundle string, rec *Recording, o RunOptions) (status int, err error) {
	if o.Detach || o.Keep {
		return -1, wrap("record", id, errors.New("a recording ends with the container: it cannot be detached or kept"))
	}
	o.recording = rec.Recording
	if status, err = r.Run(id, bundle, o); err != nil {
		return status, err
	}
	select {
	case <-rec.Ended():
		return status, nil
	case <-time.After(recordPatience):
		return status, wrap("record", id, fmt.Errorf("processes of the container still run after %v", recordPatience))
	}
}

// server is an agent in this process: it serves until the listener has nobody left.
type server struct {
	s interface{ Serve(listener int) }
}

func (s server) take(listener, _ int) error {
	fd, err := unix.FcntlInt(uintptr(listener), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	go s.s.Serve(fd)
	return nil
}

// ExplainProfile says what the profile of a file, as ReadProfile takes it, does.
func (r *Runtime) ExplainProfile(path string) (*seccomp.Explanation, error) {
	profile, err := ReadProfile(path)
	if err != nil {
		return nil, wrap("check", "", err)
	}
	e, err := seccomp.Explain(profile, r.Seccomp)
	return e, wrap("check", "", fieldError(err))
}
