package resctrl

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	mountpoint = "/sys/fs/resctrl"
	superMagic = 0x7655821 // RDTGROUP_SUPER_MAGIC
)

// Pointer is the JSON pointer of what this package serves.
const Pointer = "/linux/intelRdt"

// ErrNotMounted says that there is no resctrl in our mount namespace.
var ErrNotMounted = errors.New("no resctrl file system is mounted")

// Use is what a container has of resctrl.
type Use struct {
	Class   string // directory of its class; "" is the default class
	Own     bool   // the class is the container's alone, since the config names none
	Made    bool   // create makes the class
	Monitor string // its monitoring group in that class, "" without
	Before  string // schemata of a class that was there before and that create changes

	after string // what became of Before, as far as this process knows
}

// FS is the mounted file system.
type FS struct {
	fd   int
	path string
}

// Open finds resctrl where it is by convention, or else wherever it is mounted.
func Open() (*FS, error) {
	f, err := open(mountpoint, superMagic)
	if !errors.Is(err, ErrNotMounted) {
		return f, err
	}
	list, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(list)) {
		// ID PARENT MAJOR:MINOR ROOT PATH OPTIONS … - TYPE SOURCE OPTIONS
		if at := strings.Fields(line); strings.Contains(line, " - resctrl ") && len(at) > 4 && at[3] == "/" {
			return open(at[4], superMagic)
		}
	}
	return nil, err
}

// open opens the root of resctrl at path. What was checked is what is used.
func open(path string, magic int64) (*FS, error) {
	fd, err := kernfs.Open(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("%w: %w", err, ErrNotMounted)}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Statfs_t
	if err = kernfs.Retry(func() error { return unix.Fstatfs(fd, &st) }); err == nil && int64(st.Type) != magic {
		err = ErrNotMounted
	}
	if err != nil {
		kernfs.Close(fd)
		return nil, &fs.PathError{Op: "use", Path: path, Err: err}
	}
	return &FS{fd, path}, nil
}

// Close gives up the descriptor and the lock, if it is held.
func (f *FS) Close() {
	if f == nil || f.fd < 0 {
		return
	}
	// By a call, since a child that has not executed yet shares the open file, and would
	// keep it locked.
	_ = kernfs.Retry(func() error { return unix.Flock(f.fd, unix.LOCK_UN) })
	kernfs.Close(f.fd)
	f.fd = -1
}

// Lock keeps out all others that keep to the convention, waiting for them until the deadline.
func (f *FS) Lock(deadline time.Time) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err != unix.EWOULDBLOCK && err != unix.EINTR:
			return &fs.PathError{Op: "lock", Path: f.path, Err: err}
		case time.Now().After(deadline):
			return &fs.PathError{Op: "lock", Path: f.path, Err: fmt.Errorf("another program holds it: %w", os.ErrDeadlineExceeded)}
		}
		time.Sleep(pause)
	}
}

// Look decides what container id will have. It changes nothing; Make has to follow under
// the same lock.
func (f *FS) Look(r *specs.LinuxIntelRdt, id string) (*Use, error) {
	u := &Use{Class: r.ClosID, Own: r.ClosID == ""}
	switch r.ClosID {
	case "":
		u.Class = id
	case "/":
		u.Class = ""
	}
	if r.EnableMonitoring {
		u.Monitor = id
	}
	class, err := f.open(u.Class)
	switch {
	case err == unix.ENOENT:
		if u.Made = u.Own || given(r); u.Made {
			return u, nil
		}
		return nil, f.fail("/closID", u.Class, fmt.Errorf("%w: without a schema, the class of service has to be there already", err))
	case err != nil:
		return nil, f.fail("/closID", u.Class, err)
	}
	defer kernfs.Close(class)
	if u.Own {
		return nil, f.fail("", u.Class, fmt.Errorf("%w: no class of service can be made for the container", unix.EEXIST))
	}
	return u, f.join(u, class, r)
}

// given says whether there is anything to write to a schemata file.
func given(r *specs.LinuxIntelRdt) bool {
	return r.L3CacheSchema != "" || r.MemBwSchema != "" || len(r.Schemata) > 0
}

// join looks whether a class that exists will do.
func (f *FS) join(u *Use, class int, r *specs.LinuxIntelRdt) error {
	// What is no class (info, mon_groups) has no such file.
	if err := kernfs.Retry(func() error { return unix.Faccessat(class, "tasks", unix.F_OK, 0) }); err != nil {
		return f.fail("/closID", u.Class, fmt.Errorf("%w: it is not a class of service", err))
	}
	if u.Monitor != "" {
		err := kernfs.Retry(func() error { return unix.Faccessat(class, "mon_groups/"+u.Monitor, unix.F_OK, 0) })
		if err == nil {
			return f.fail("/enableMonitoring", u.Class+"/mon_groups/"+u.Monitor, unix.EEXIST)
		}
	}
	if !given(r) {
		return nil
	}
	have, err := kernfs.Read(class, "schemata")
	if err != nil {
		return f.fail("/closID", u.Class+"/schemata", err)
	}
	if len(r.Schemata) > 0 {
		u.Before = have
	}
	for _, s := range []schema{{"/l3CacheSchema", r.L3CacheSchema}, {"/memBwSchema", r.MemBwSchema}} {
		if err := mismatch(s.text, have, f.granularity()); err != nil {
			return f.fail(s.field, u.Class+"/schemata", err)
		}
	}
	return nil
}

// granularity is the step to which the kernel rounds percentages of bandwidth up.
func (f *FS) granularity() uint64 {
	text, _ := kernfs.Read(f.fd, "info/MB/bandwidth_gran")
	n, _ := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	return n
}

// schema is a line for a schemata file and the field that it comes from.
type schema struct{ field, text string }

// Make makes what Look announced. What it left undone when it failed, Undo knows.
func (f *FS) Make(u *Use, r *specs.LinuxIntelRdt) error {
	if u.Made {
		if err := kernfs.Mkdir(f.fd, u.Class); err != nil {
			u.Made = false // whatever may be there is not ours
			blame := "/closID"
			if u.Own {
				blame = ""
			}
			return f.fail(blame, u.Class, f.explain(err))
		}
	}
	class, err := f.open(u.Class)
	if err != nil {
		return f.fail("", u.Class, err)
	}
	defer kernfs.Close(class)
	if err := f.write(u, class, r); err != nil {
		return err
	}
	if u.Monitor == "" {
		return nil
	}
	name := "mon_groups/" + u.Monitor
	if err := kernfs.Mkdir(class, name); err != nil {
		u.Monitor = ""
		if err == unix.ENOENT {
			err = fmt.Errorf("%w: this CPU does not monitor", err)
		}
		return f.fail("/enableMonitoring", u.Class+"/"+name, f.explain(err))
	}
	return nil
}

// write writes the schemas in the order that the specification gives, one at a time: the
// kernel takes no domain twice in one write, but a later field may override an earlier one.
func (f *FS) write(u *Use, class int, r *specs.LinuxIntelRdt) error {
	var list []schema
	if u.Made { // of one that was there, they were compared
		list = append(list, schema{"/l3CacheSchema", r.L3CacheSchema}, schema{"/memBwSchema", r.MemBwSchema})
	}
	for i, s := range r.Schemata {
		list = append(list, schema{"/schemata/" + strconv.Itoa(i), s})
	}
	err := f.writeAll(u, class, list)
	if u.Before != "" && err == nil {
		u.after, _ = kernfs.Read(class, "schemata")
	}
	return err
}

func (f *FS) writeAll(u *Use, class int, list []schema) error {
	for _, s := range list {
		if s.text == "" {
			continue
		}
		if err := kernfs.Write(class, "schemata", s.text+"\n"); err != nil {
			return &cgroups.FieldError{Field: Pointer + s.field, File: f.name(u.Class + "/schemata"), Value: s.text, Err: f.explain(err)}
		}
	}
	return nil
}

// Change writes schemas of r to the class of a container, all or none, and returns what
// it had before. The default class is everybody's, and not to be changed by way of a
// container.
func (f *FS) Change(u *Use, r *specs.LinuxIntelRdt) (before string, err error) {
	if u.Class == "" {
		return "", f.fail("", "", fmt.Errorf("the container is in the default class of service, which is everybody's: %w", unix.EPERM))
	}
	class, err := f.open(u.Class)
	if err != nil {
		return "", f.fail("", u.Class, err)
	}
	defer kernfs.Close(class)
	if before, err = kernfs.Read(class, "schemata"); err != nil {
		return "", f.fail("", u.Class+"/schemata", err)
	}
	err = f.writeAll(u, class, []schema{{"/l3CacheSchema", r.L3CacheSchema}, {"/memBwSchema", r.MemBwSchema}})
	if err != nil {
		_ = kernfs.Write(class, "schemata", before)
	}
	return before, err
}

// Restore takes back a Change.
func (f *FS) Restore(u *Use, before string) error {
	class, err := f.open(u.Class)
	if err != nil {
		return f.fail("", u.Class, err)
	}
	defer kernfs.Close(class)
	return f.fail("", u.Class+"/schemata", kernfs.Write(class, "schemata", before))
}

// Join moves the thread pid into the class and its monitoring group. The threads and
// processes that it makes from then on are born there.
func (f *FS) Join(u *Use, pid int) error {
	class, err := f.open(u.Class)
	if err != nil {
		return f.fail("", u.Class, err)
	}
	defer kernfs.Close(class)
	// A monitoring group takes only threads of its class.
	files := []string{"tasks"}
	if u.Monitor != "" {
		files = append(files, "mon_groups/"+u.Monitor+"/tasks")
	}
	for _, file := range files {
		if err := kernfs.Write(class, file, strconv.Itoa(pid)); err != nil {
			return &cgroups.FieldError{Field: Pointer, File: f.name(u.Class + "/" + file), Value: strconv.Itoa(pid), Err: f.explain(err)}
		}
	}
	return nil
}

// Remove removes what is the container's alone: its monitoring group, and its class if
// the config names none. What is gone already is no error.
func (f *FS) Remove(u *Use) error {
	class, err := f.open(u.Class)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return f.fail("", u.Class, err)
	}
	defer kernfs.Close(class)
	if u.Monitor != "" {
		name := "mon_groups/" + u.Monitor
		if err := rmdir(class, name); err != nil {
			return f.fail("/enableMonitoring", u.Class+"/"+name, err)
		}
	}
	if u.Own && u.Made {
		return f.fail("", u.Class, rmdir(f.fd, u.Class))
	}
	return nil
}

// Undo makes everything as it was before Make: what Remove removes, a class that others
// might have used by then, and the schemata of one that was there before.
func (f *FS) Undo(u *Use) error {
	if err := f.Remove(u); err != nil || u.Own {
		return err
	}
	class, err := f.open(u.Class)
	if err != nil {
		return nil // removed, or never made
	}
	defer kernfs.Close(class)
	switch {
	case u.Made && unused(class):
		return f.fail("/closID", u.Class, rmdir(f.fd, u.Class))
	case u.Made || u.Before == "":
		return nil
	}
	// Another may have changed it after us.
	if now, err := kernfs.Read(class, "schemata"); err != nil || now == u.Before || u.after != "" && now != u.after {
		return err
	}
	return f.fail("/schemata", u.Class+"/schemata", kernfs.Write(class, "schemata", u.Before))
}

// rmdir removes a group. One that is gone is no error.
func rmdir(dir int, name string) error {
	if err := kernfs.Rmdir(dir, name); !kernfs.Gone(err) {
		return err
	}
	return nil
}

// groups lists those in a directory; none if it is not there.
func groups(dir int, name string) []string {
	fd, err := kernfs.Open(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer kernfs.Close(fd)
	return kernfs.Groups(fd)
}

// unused says whether nobody is in a class, which rmdir would not mind. One that has
// ended but was not reaped yet counts as nobody.
func unused(class int) bool {
	if len(groups(class, "mon_groups")) > 0 {
		return false
	}
	tasks, err := kernfs.Read(class, "tasks")
	for pid := range strings.FieldsSeq(tasks) {
		stat, _ := os.ReadFile("/proc/" + pid + "/stat")
		// The state is the letter after the name, which is in parentheses.
		if k := bytes.LastIndexByte(stat, ')') + 2; k > 1 && k < len(stat) && stat[k] != 'Z' && stat[k] != 'X' {
			return false
		}
	}
	return err == nil
}

// name is the path, for people, of something below the root.
func (f *FS) name(below string) string {
	return f.path + strings.TrimSuffix("/"+strings.TrimPrefix(below, "/"), "/")
}

// fail says which field is to blame for err, and where it happened.
func (f *FS) fail(sub, below string, err error) error {
	if err == nil {
		return nil
	}
	return &cgroups.FieldError{Field: Pointer + sub, Err: &fs.PathError{Op: "use", Path: f.name(below), Err: err}}
}

// explain adds what the kernel says about a call that it refused.
func (f *FS) explain(err error) error {
	text, _ := kernfs.Read(f.fd, "info/last_cmd_status")
	if text = strings.TrimSpace(text); text == "" || text == "ok" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, text)
}

// open opens the directory of a class.
func (f *FS) open(class string) (int, error) {
	if class == "" {
		class = "."
	}
	return kernfs.Open(f.fd, class, unix.O_RDONLY|unix.O_DIRECTORY)
}
