package changes

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Scratch is a tmpfs that overlays write to.
type Scratch struct {
	Dir    int      // descriptor
	Layers []string // where the overlays are mounted, in the order of their mounts
	// Made is what was there before the container ran, by inode: mount points, for one.
	Made map[uint64]Mark
}

// Mark tells whether something is as it was.
type Mark struct {
	Mode, UID, GID uint32
	Changed        unix.Timespec
}

// Entry is something that was changed.
type Entry struct {
	Path    string // below the container's root, without a leading slash; "." is the root
	Removed bool   // it is no longer there
	Opaque  bool   // of a directory that was there before nothing is left
	Stat    unix.Stat_t
	// Left is called for the second time, after all that is in it, of a directory.
	Left bool

	Link string // where a symbolic link leads

	root int    // descriptor of the upper directory
	name string // below that
}

// Kind is the type of the file, unix.S_IFMT.
func (e *Entry) Kind() uint32 { return e.Stat.Mode & unix.S_IFMT }

// Mode are the permissions.
func (e *Entry) Mode() uint32 { return e.Stat.Mode & 0o7777 }

// overlayAttr begins the attributes that overlay keeps for itself.
const overlayAttr = "user.overlay."

// maxPath is what the kernel takes, and other programs as well.
const maxPath = unix.PathMax - 1

// Mark notes what is there.
func (s *Scratch) Mark() error {
	made := map[uint64]Mark{}
	s.Made = nil
	err := s.Walk(func(e *Entry) error {
		made[e.Stat.Ino] = markOf(&e.Stat)
		return nil
	})
	s.Made = made
	return err
}

func markOf(st *unix.Stat_t) Mark {
	m := Mark{Mode: st.Mode, UID: st.Uid, GID: st.Gid}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		m.Changed = st.Ctim // that of a directory is its content's, too
	}
	return m
}

// Walk calls visit for all that was changed: a directory before what is in it, and then
// again, which was perhaps only passed through; otherwise in the order of names.
func (s *Scratch) Walk(visit func(*Entry) error) error {
	for i, at := range s.Layers {
		name := strconv.Itoa(i) + "/upper"
		root, err := open(s.Dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return &fs.PathError{Op: "open", Path: at, Err: err}
		}
		w := &walk{scratch: s, root: root, visit: visit}
		err = w.look(nil, ".", strings.Trim(at, "/"))
		_ = unix.Close(root)
		if err != nil {
			return err
		}
	}
	return nil
}

// walk is that through one upper directory.
type walk struct {
	scratch *Scratch
	root    int
	visit   func(*Entry) error
}

// parents are the directories above something that are as they were: they are visited
// only if something in them is not.
type parents struct {
	*Entry
	up      *parents
	visited bool
}

func (w *walk) enter(p *parents) error {
	if p == nil || p.visited {
		return nil
	}
	if err := w.enter(p.up); err != nil {
		return err
	}
	p.visited = true
	return w.visit(p.Entry)
}

// look visits what is there under a name below the upper directory, if it was changed.
func (w *walk) look(up *parents, name, path string) error {
	if path == "" {
		path = "."
	}
	e := &Entry{Path: path, root: w.root, name: name}
	if err := e.stat(); err != nil {
		return err
	}
	mark, made := w.scratch.Made[e.Stat.Ino]
	same := made && mark == markOf(&e.Stat)
	if e.Kind() == unix.S_IFDIR {
		return w.directory(&parents{Entry: e, up: up}, same)
	}
	if same {
		return nil
	}
	// What hides a file of a lower layer.
	e.Removed = e.Kind() == unix.S_IFCHR && e.Stat.Rdev == 0
	if err := w.enter(up); err != nil {
		return err
	}
	return w.visit(e)
}

func (w *walk) directory(p *parents, same bool) error {
	names, err := p.read()
	if err != nil {
		return err
	}
	if !same || p.Opaque {
		if err := w.enter(p); err != nil {
			return err
		}
	}
	for _, name := range names {
		path, below := name, name
		if p.Path != "." {
			path = p.Path + "/" + name
		}
		if p.name != "." {
			below = p.name + "/" + name
		}
		if len(path) > maxPath {
			return &fs.PathError{Op: "read", Path: path[:64] + "…", Err: unix.ENAMETOOLONG}
		}
		if err := w.look(p, below, path); err != nil {
			return err
		}
	}
	if !p.visited {
		return nil
	}
	p.Left = true
	return w.visit(p.Entry)
}

// stat keeps no descriptor: there would be one for each directory on the way.
func (e *Entry) stat() error {
	fd, err := open(e.root, e.name, unix.O_PATH)
	if err != nil {
		return e.fail("open", err)
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &e.Stat); err != nil {
		return e.fail("stat", err)
	}
	if e.Kind() != unix.S_IFLNK {
		return nil
	}
	buf := make([]byte, unix.PathMax)
	n, err := retry(func() (int, error) { return unix.Readlinkat(fd, "", buf) })
	if err != nil {
		return e.fail("readlink", err)
	}
	e.Link = string(buf[:n])
	return nil
}

// read lists a directory.
func (e *Entry) read() ([]string, error) {
	fd, err := open(e.root, e.name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, e.fail("open", err)
	}
	f := os.NewFile(uintptr(fd), e.Path)
	defer f.Close()
	attrs, err := attributes(fd)
	if err != nil {
		return nil, e.fail("read the attributes of", err)
	}
	e.Opaque = string(attrs[overlayAttr+"opaque"]) == "y"
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// Open opens a file to be read.
func (e *Entry) Open() (*os.File, error) {
	fd, err := open(e.root, e.name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, e.fail("open", err)
	}
	return os.NewFile(uintptr(fd), e.Path), nil
}

// Attributes are the user's own ones of a file or a directory.
func (e *Entry) Attributes() (map[string][]byte, error) {
	f, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := attributes(int(f.Fd()))
	for name := range all {
		if strings.HasPrefix(name, overlayAttr) {
			delete(all, name)
		}
	}
	if err != nil {
		err = e.fail("read the attributes of", err)
	}
	return all, err
}

// attributes reads user.*. Others belong to the host's policy, or give rights.
func attributes(fd int) (map[string][]byte, error) {
	list := make([]byte, 64<<10)
	n, err := retry(func() (int, error) { return unix.Flistxattr(fd, list) })
	if err == unix.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all map[string][]byte
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if !strings.HasPrefix(name, "user.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := retry(func() (int, error) { return unix.Fgetxattr(fd, name, value) })
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if all == nil {
			all = map[string][]byte{}
		}
		all[name] = slices.Clone(value[:n])
	}
	return all, nil
}

func (e *Entry) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: "/" + e.Path, Err: err}
}

// open opens what is below dir, without following anything.
func open(dir int, name string, flags uint64) (int, error) {
	return retry(func() (int, error) {
		return unix.Openat2(dir, name, &unix.OpenHow{
			Flags:   flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
		})
	})
}

func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}
