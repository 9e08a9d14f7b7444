package runtime

import (
	"encoding/json/v2"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The state root holds one directory per container, named by its id:
//
//	ROOT/ID/state.json  the record below, replaced atomically
//	ROOT/ID/init        locked (OFD) by the init through a close-on-exec descriptor:
//	                    as long as the lock is held, the process has not been executed
//	ROOT/ID/start       socket on which the parked init awaits start
//
// The directory itself is locked (flock) by create, start and delete. Readers take no
// lock: the record is consistent at any time, and what it says of processes is checked
// against the kernel.
const (
	stateFile = "state.json"
	lockFile  = "init"
	startSock = "start"
)

// lockPatience is how long an operation waits for another one on the same container.
const lockPatience = 10 * time.Second

// Phases of a record.
const (
	phaseCreating = "creating" // side effects may exist; the creator owns them
	phaseCreated  = "created"  // committed
)

// record is what create leaves for the later commands, which never read config.json.
type record struct {
	Version     int               `json:"version"` // of this layout
	OCIVersion  string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Phase       string            `json:"phase"`
	Creator     process           `json:"creator"` // who owns a record in phase creating
	Init        process           `json:"init"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Owner       int               `json:"owner"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Cgroup      string            `json:"cgroup"`               // "" when the container has none of its own
	CgroupMade  []string          `json:"cgroupMade,omitempty"` // directories that create made, outermost first
	NoProcess   bool              `json:"noProcess,omitempty"`
	owned       bool              // the creator found the cgroup usable
	StartHooks  []int             `json:"startHooks,omitempty"` // timeouts of startContainer hooks, seconds, 0: none
	Poststart   []specs.Hook      `json:"poststart,omitempty"`
	Poststop    []specs.Hook      `json:"poststop,omitempty"`
}

const recordVersion = 1

// process identifies a process for good: a pid can be reused, but not with the same start time.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot
}

// checkID accepts the ids that runc accepts: they become file names and cgroup names.
func checkID(id string) error {
	ok := id != "" && id != "." && id != ".." && len(id) <= 255
	for _, c := range []byte(id) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_+.-", c) >= 0)
	}
	if !ok {
		return &Error{
			Err:  fmt.Errorf("invalid container id %q", id),
			Hint: "an id has 1 to 255 letters, digits and _ + . - and is not . or ..",
		}
	}
	return nil
}

// entry is an open, possibly locked container directory.
type entry struct {
	root   string
	id     string
	rootFD int
	fd     int
}

func (e *entry) close() {
	_ = unix.Close(e.fd)
	_ = unix.Close(e.rootFD)
}

const dirFlags = unix.O_DIRECTORY | unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW

// openRoot opens the state root, making it if asked to, and refuses one that others can write.
func (r *Runtime) openRoot(create bool) (int, error) {
	if create {
		if err := os.MkdirAll(r.Root, 0o700); err != nil {
			return -1, err
		}
	}
	fd, err := unix.Open(r.Root, dirFlags&^unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open state root", Path: r.Root, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&0o002 != 0 && st.Mode&unix.S_ISVTX == 0 {
		_ = unix.Close(fd)
		return -1, &Error{
			Path: r.Root, Err: fmt.Errorf("state root %s is writable by everybody", r.Root),
			Hint: "chmod 700 it, or choose another one with --root",
		}
	}
	return fd, nil
}

// open opens the directory of an existing container.
func (r *Runtime) open(id string) (*entry, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	root, err := r.openRoot(false)
	if errors.Is(err, unix.ENOENT) {
		return nil, ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	e := &entry{root: r.Root, id: id, rootFD: root}
	if e.fd, err = unix.Openat(root, id, dirFlags, 0); err != nil {
		_ = unix.Close(root)
		if err == unix.ENOENT {
			return nil, ErrNotExist
		}
		return nil, &fs.PathError{Op: "open state", Path: r.Root + "/" + id, Err: err}
	}
	return e, nil
}

// openLocked opens an existing container and locks it against other operations.
func (r *Runtime) openLocked(id string) (*entry, error) {
	e, err := r.open(id)
	if err != nil {
		return nil, err
	}
	if err := e.lock(); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// claim makes and locks the directory of a new container. One that a crashed create
// left is taken over after its remains are torn down.
func (r *Runtime) claim(id string) (*entry, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	root, err := r.openRoot(true)
	if err != nil {
		return nil, err
	}
	for {
		e := &entry{root: r.Root, id: id, rootFD: root}
		err := unix.Mkdirat(root, id, 0o700)
		if err != nil && err != unix.EEXIST {
			e.fd = -1
			e.close()
			return nil, &fs.PathError{Op: "make state directory", Path: r.Root + "/" + id, Err: err}
		}
		if e.fd, err = unix.Openat(root, id, dirFlags, 0); err == unix.ENOENT {
			continue // deleted in between
		}
		if err != nil {
			e.close()
			return nil, &fs.PathError{Op: "open state", Path: r.Root + "/" + id, Err: err}
		}
		if err = r.takeOver(e); err == nil {
			return e, nil
		}
		_ = unix.Close(e.fd)
		if err == ErrNotExist {
			continue
		}
		_ = unix.Close(root)
		return nil, err
	}
}

// takeOver locks e and makes sure that no living container has it.
func (r *Runtime) takeOver(e *entry) error {
	if rec, err := e.read(); err == nil && (rec.Phase == phaseCreated || rec.Creator.alive()) {
		return ErrExist
	}
	if err := e.lock(); err != nil {
		return err
	}
	rec, err := e.read()
	if errors.Is(err, ErrNotExist) {
		return nil // new, or removed as far as its record
	}
	if err != nil {
		return err
	}
	if rec.Phase == phaseCreated {
		return ErrExist
	}
	if err := r.destroy(e, rec); err != nil {
		return err
	}
	return ErrNotExist // the directory went with it: make a new one
}

// lock takes the directory's lock, waiting up to lockPatience. ErrNotExist: the
// directory was removed while we waited.
func (e *entry) lock() error {
	pause := time.Millisecond
	for deadline := time.Now().Add(lockPatience); ; {
		err := unix.Flock(e.fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return &fs.PathError{Op: "lock", Path: e.root + "/" + e.id, Err: err}
		}
		if time.Now().After(deadline) {
			return ErrBusy
		}
		time.Sleep(pause)
		pause = min(2*pause, 50*time.Millisecond)
	}
	var st, named unix.Stat_t
	if unix.Fstat(e.fd, &st) != nil || unix.Fstatat(e.rootFD, e.id, &named, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Ino != named.Ino {
		return ErrNotExist
	}
	return nil
}

// maxRecord bounds what is read back: annotations come from a config of at most 16 MiB.
const maxRecord = 64 << 20

// read reads the record. A missing one is ErrNotExist.
func (e *entry) read() (*record, error) {
	fd, err := unix.Openat(e.fd, stateFile, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == unix.ENOENT {
		return nil, ErrNotExist
	}
	if err != nil {
		return nil, e.pathError("open", err)
	}
	defer unix.Close(fd)
	b, err := readAll(fd, maxRecord)
	if err != nil {
		return nil, e.pathError("read", err)
	}
	rec := new(record)
	if err := json.Unmarshal(b, rec); err != nil {
		return nil, e.pathError("parse", err)
	}
	if rec.Version != recordVersion || rec.ID != e.id {
		return nil, e.pathError("parse", fmt.Errorf("written by another version of husk (layout %d)", rec.Version))
	}
	return rec, nil
}

func (e *entry) pathError(op string, err error) error {
	return &fs.PathError{Op: op, Path: e.root + "/" + e.id + "/" + stateFile, Err: err}
}

// write replaces the record so that a reader, or a crash, sees the old one or the new one.
func (e *entry) write(rec *record) error {
	b, err := json.Marshal(rec, json.Deterministic(true))
	if err != nil {
		return err
	}
	if err := replaceFile(e.fd, stateFile, b, true); err != nil {
		return e.pathError("write", err)
	}
	return nil
}

// replaceFile writes name in dir atomically: a temporary file, then rename.
func replaceFile(dir int, name string, b []byte, durable bool) (err error) {
	tmp := "." + name + ".tmp" + strconv.Itoa(os.Getpid())
	fd, err := unix.Openat(dir, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = unix.Unlinkat(dir, tmp, 0)
		}
	}()
	err = writeAll(fd, b)
	if err == nil && durable {
		err = unix.Fsync(fd)
	}
	if e := unix.Close(fd); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if err = unix.Renameat(dir, tmp, dir, name); err == nil && durable {
		err = unix.Fsync(dir)
	}
	return err
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func readAll(fd, limit int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size > int64(limit) {
		return nil, unix.EFBIG
	}
	b := make([]byte, 0, st.Size+1)
	for {
		if len(b) == cap(b) {
			b = slices.Grow(b, 4096)
		}
		n, err := unix.Read(fd, b[len(b):cap(b)])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return b, err
		}
		if b = b[:len(b)+n]; len(b) > limit {
			return nil, unix.EFBIG
		}
	}
}

// remove deletes the container's directory, its record last: whoever is killed in
// between leaves either a record that delete finds, or an empty directory that the
// next create takes over.
func (e *entry) remove() error {
	names, err := e.names()
	if err != nil {
		return err
	}
	slices.SortFunc(names, func(a, b string) int { return boolInt(a == stateFile) - boolInt(b == stateFile) })
	for _, name := range names {
		if err := unix.Unlinkat(e.fd, name, 0); err != nil && err != unix.ENOENT {
			return &fs.PathError{Op: "remove", Path: e.root + "/" + e.id + "/" + name, Err: err}
		}
	}
	err = unix.Unlinkat(e.rootFD, e.id, unix.AT_REMOVEDIR)
	if err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "remove", Path: e.root + "/" + e.id, Err: err}
	}
	return nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (e *entry) names() ([]string, error) { return readDir(e.fd) }

// readDir lists the directory dir through a descriptor of its own.
func readDir(dir int) ([]string, error) {
	fd, err := unix.Openat(dir, ".", dirFlags, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	f := os.NewFile(uintptr(fd), "state")
	defer f.Close()
	return f.Readdirnames(-1)
}

// exists says whether the process still runs: the same one, and not a zombie.
func (p process) alive() bool {
	if p.PID <= 0 {
		return false
	}
	start, state, err := processStart(p.PID)
	return err == nil && start == p.Start && state != 'Z' && state != 'X'
}

// handle returns a pidfd of the process, or ESRCH. It is opened before the check, so
// that what was checked is what will be signalled.
func (p process) handle() (int, error) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	if !p.alive() {
		_ = unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

// processStart reads start time and state of a process from /proc/PID/stat.
func processStart(pid int) (start uint64, state byte, err error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	defer unix.Close(fd)
	b, err := readAll(fd, 1<<16)
	if err != nil {
		return 0, 0, err
	}
	return parseStat(b)
}

// parseStat takes the state (field 3) and the start time (field 22) out of a line of
// /proc/PID/stat. The command name in parentheses may itself hold anything, even ") S 1 (":
// only its last parenthesis counts.
func parseStat(b []byte) (start uint64, state byte, err error) {
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if strings.IndexByte(s, ')') < 0 || len(fields) < 20 || len(fields[0]) != 1 {
		return 0, 0, errors.New("malformed /proc/PID/stat")
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0][0], err
}

// self identifies the calling process.
func self() (process, error) {
	start, _, err := processStart(os.Getpid())
	return process{PID: os.Getpid(), Start: start}, err
}
