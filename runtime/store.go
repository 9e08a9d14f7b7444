package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

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
	for _, fd := range []*int{&e.fd, &e.rootFD} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
		}
		*fd = -1
	}
}

const dirFlags = unix.O_DIRECTORY | unix.O_RDONLY

// openRoot opens the state root, making it if asked to. It refuses one that is not ours
// alone: whoever can put a record there has us run its hooks.
func (r *Runtime) openRoot(create bool) (int, error) {
	if create {
		if err := makeRoot(r.Root); err != nil {
			return -1, err
		}
	}
	fd, err := openPath(r.Root, dirFlags)
	if err != nil {
		return -1, &fs.PathError{Op: "open state root", Path: r.Root, Err: err}
	}
	if err := ours(fd, r.Root); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// makeRoot makes the state root if it is missing. That of an ordinary user lies below
// XDG_RUNTIME_DIR, where only what is sticky is safe from being cleaned up.
func makeRoot(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil || os.Geteuid() == 0 {
		return err
	}
	return os.Chmod(path, 0o700|os.ModeSticky)
}

// ours refuses a directory that belongs to somebody else or that others may write to,
// a sticky one too.
func ours(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if int(st.Uid) == os.Geteuid() && st.Mode&0o022 == 0 {
		return nil
	}
	return &Error{
		Path: path, Err: fmt.Errorf("%s is not ours alone: mode %04o, owner %d", path, st.Mode&0o7777, st.Uid),
		Hint: "the state root must belong to who runs husk, and be writable for nobody else; --root picks another one",
	}
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
	if e.fd, err = openat(root, id, dirFlags, 0); err != nil {
		_ = unix.Close(root)
		if err == unix.ENOENT {
			return nil, ErrNotExist
		}
		return nil, &fs.PathError{Op: "open state", Path: r.Root + "/" + id, Err: err}
	}
	if err := ours(e.fd, r.Root+"/"+id); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// find opens an existing container, without locking it, and reads its record.
func (r *Runtime) find(id string) (*entry, *record, error) {
	e, err := r.open(id)
	if err != nil {
		return nil, nil, err
	}
	rec, err := e.read()
	if err != nil {
		e.close()
		return nil, nil, err
	}
	return e, rec, nil
}

// openLocked opens an existing container and locks it against other operations. While
// it is being created there is nothing to wait for, save for those who are patient.
func (r *Runtime) openLocked(id string, patient bool) (*entry, error) {
	e, err := r.open(id)
	if err != nil {
		return nil, err
	}
	if rec, err := e.read(); err == nil && !patient && rec.Phase == phaseCreating && e.creating(rec) {
		e.close()
		return nil, fmt.Errorf("the container is still being created by process %d", rec.Creator.PID)
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
		e, err := r.tryClaim(root, id)
		if err == nil {
			return e, nil
		}
		// Another delete was faster, or we have just torn down what was left.
		if err != ErrNotExist {
			_ = unix.Close(root)
			return nil, err
		}
	}
}

// tryClaim makes or opens the directory and takes it over. A refused one that it made
// is gone again; ErrNotExist asks for another try.
func (r *Runtime) tryClaim(root int, id string) (e *entry, err error) {
	err = retryErr(func() error { return unix.Mkdirat(root, id, 0o700) })
	made := err == nil
	if err != nil && err != unix.EEXIST {
		return nil, &fs.PathError{Op: "make state directory", Path: r.Root + "/" + id, Err: err}
	}
	e = &entry{root: r.Root, id: id, rootFD: root}
	e.fd, err = openat(root, id, dirFlags, 0)
	switch {
	case err == unix.ENOENT:
		return nil, ErrNotExist
	case err != nil:
		err = &fs.PathError{Op: "open state", Path: r.Root + "/" + id, Err: err}
	default:
		if err = r.takeOver(e); err == nil {
			return e, nil
		}
		_ = unix.Close(e.fd)
	}
	if made {
		_ = unlinkat(root, id, unix.AT_REMOVEDIR)
	}
	return nil, err
}

// takeOver locks e and makes sure that no living container has it.
func (r *Runtime) takeOver(e *entry) error {
	if err := ours(e.fd, r.Root+"/"+e.id); err != nil {
		return err
	}
	if rec, err := e.read(); err == nil && (rec.Phase == phaseCreated || e.creating(rec)) {
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

// locked says whether an operation holds the lock.
func (e *entry) locked() bool {
	fd, err := openat(e.fd, ".", dirFlags, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK
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

// remove deletes the container's directory, its record last: whoever is killed in
// between leaves either a record that delete finds, or an empty directory that the
// next create takes over.
func (e *entry) remove() error {
	names, err := readDir(e.fd)
	if err != nil {
		return err
	}
	slices.SortFunc(names, func(a, b string) int { return boolInt(a == stateFile) - boolInt(b == stateFile) })
	for _, name := range names {
		err := unlinkat(e.fd, name, 0)
		if err == unix.EISDIR {
			err = e.removeNotify()
		}
		if err != nil && err != unix.ENOENT {
			return e.pathError("remove", name, err)
		}
	}
	err = unlinkat(e.rootFD, e.id, unix.AT_REMOVEDIR)
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
