package rootfs

import (
	"errors"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// A rename or mount anywhere on the machine, while ".." is resolved, makes
	// openat2 give up with EAGAIN. An attacker can go on renaming forever; we
	// do not go on trying forever.
	maxRetries = 256
	maxLinks   = 40 // as the kernel
)

func fact(op, where string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: where, Err: err}
}

// lookup opens p below root as a process inside would, resolving symbolic links
// against root. Magic links (/proc/self/fd/N) are refused: they lead out.
func lookup(root int, p string, flags int, resolve uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve,
	}
	for range maxRetries {
		fd, err := openat2(root, p, &how)
		if err != unix.EAGAIN {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// maker says how a missing path is brought into being.
type maker struct {
	root    int
	mode    uint32 // of directories
	resolve uint64
	links   int
}

// split takes the last component off. Slashes and "." components vanish, ".."
// stays: only the kernel knows where it leads.
func split(p string) (dir, last string) {
	for {
		p = strings.TrimRight(p, "/")
		i := strings.LastIndexByte(p, '/')
		dir, last = p[:i+1], p[i+1:]
		if last != "." {
			return dir, last
		}
		p = dir
	}
}

// mkdirAll opens the directory p below root and makes what is missing of it,
// each by a single component below an open directory, so that no swapped
// symbolic link can send it elsewhere (CVE-2024-45310).
func (m *maker) mkdirAll(p string) (int, error) {
	fd, err := lookup(m.root, p, unix.O_PATH|unix.O_DIRECTORY, m.resolve)
	if err != unix.ENOENT {
		return fd, err
	}
	dir, last := split(p)
	if last == "" {
		return -1, err
	}
	parent, err := m.mkdirAll(dir)
	if err != nil {
		return -1, err
	}
	defer shut(parent)
	if last == ".." {
		return lookup(m.root, p, unix.O_PATH|unix.O_DIRECTORY, m.resolve)
	}
	switch err := mkdirat(parent, last, m.mode); {
	case err == unix.EEXIST:
		if next, err := m.dangling(parent, dir, last); next != "" || err != nil {
			return m.follow(next, err, m.mkdirAll)
		}
	case err != nil:
		return -1, err
	}
	return openat(parent, last, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
}

// create opens p, or makes it as an empty file.
func (m *maker) create(p string) (int, error) {
	fd, err := lookup(m.root, p, unix.O_PATH, m.resolve)
	if err != unix.ENOENT {
		return fd, err
	}
	dir, last := split(p)
	if last == "" || last == ".." {
		return -1, unix.ENOENT
	}
	parent, err := m.mkdirAll(dir)
	if err != nil {
		return -1, err
	}
	defer shut(parent)
	switch err := mknodat(parent, last, unix.S_IFREG|0o644, 0); {
	case err == unix.EEXIST:
		if next, err := m.dangling(parent, dir, last); next != "" || err != nil {
			return m.follow(next, err, m.create)
		}
	case err != nil:
		return -1, err
	}
	return openat(parent, last, unix.O_PATH|unix.O_NOFOLLOW)
}

// dangling returns where the symbolic link dir/last points, as a path below
// root: /var/run leads to a /run that the image does not have. It returns ""
// if there is something else by now.
func (m *maker) dangling(parent int, dir, last string) (string, error) {
	text, err := readlinkat(parent, last)
	switch {
	case err == unix.EINVAL || err == unix.ENOENT:
		return "", nil
	case err != nil:
		return "", err
	case m.resolve&unix.RESOLVE_NO_SYMLINKS != 0:
		return "", unix.ELOOP
	case path.IsAbs(text):
		return text, nil
	}
	return dir + text, nil
}

func (m *maker) follow(p string, err error, open func(string) (int, error)) (int, error) {
	if m.links++; err == nil && m.links > maxLinks {
		err = unix.ELOOP
	}
	if err != nil {
		return -1, err
	}
	return open(p)
}

// OpenFile opens a path inside the container. Symbolic links are resolved
// against its root, magic links refused. The descriptor is close-on-exec.
func (r *Root) OpenFile(p string, flags int) (int, error) {
	fd, err := lookup(r.fd, p, flags, 0)
	return fd, fact("open", p, err)
}

// MkdirAll opens a directory inside the container (O_PATH) and makes what is
// missing of it with the given mode.
func (r *Root) MkdirAll(p string, mode uint32) (int, error) {
	defer umask(umask(0))
	m := maker{root: r.fd, mode: mode}
	fd, err := m.mkdirAll(p)
	return fd, fact("mkdir", p, err)
}

const maxPasswd = 1 << 20

var errPasswd = errors.New("is not a regular file")

// Home returns the home directory that the container's /etc/passwd gives the
// user, or "" if it says nothing. The file belongs to the attacker: a FIFO must
// not block, a huge file must not be read to its end.
func (r *Root) Home(uid uint32) (string, error) {
	const name = "/etc/passwd"
	fd, err := lookup(r.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == unix.ENOENT {
		return "", nil
	}
	if err != nil {
		return "", fact("open", name, err)
	}
	defer shut(fd)
	if st, err := statx(fd, "", 0); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", fact("read", name, errors.Join(errPasswd, err))
	}
	data, err := readAll(fd, maxPasswd)
	return homeOf(string(data), uid), fact("read", name, err)
}

// homeOf finds the sixth field of the first line whose third is uid.
func homeOf(passwd string, uid uint32) string {
	for line := range strings.Lines(passwd) {
		field := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(field) >= 6 && isUID(field[2], uid) {
			return field[5]
		}
	}
	return ""
}

// isUID compares strictly: "+1", "01" or "4294967297" are not user 1.
func isUID(text string, uid uint32) bool {
	var b [10]byte
	i := len(b)
	for {
		i--
		b[i] = byte('0' + uid%10)
		if uid /= 10; uid == 0 {
			return text == string(b[i:])
		}
	}
}

// readAll reads at most limit bytes.
func readAll(fd, limit int) ([]byte, error) {
	buf := make([]byte, 0, 4096)
	for len(buf) < limit {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := read(fd, buf[len(buf):min(cap(buf), limit)])
		if n <= 0 || err != nil {
			return buf, err
		}
		buf = buf[:len(buf)+n]
	}
	return buf, nil
}
