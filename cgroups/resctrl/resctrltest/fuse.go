package resctrltest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Magic is what fstatfs(2) says of the file system, which no FUSE server can choose.
const Magic = 0x65735546 // FUSE_SUPER_MAGIC

// Requests of <linux/fuse.h>.
const (
	opLookup, opForget, opGetattr, opSetattr = 1, 2, 3, 4
	opMkdir, opRmdir                         = 9, 11
	opOpen, opRead, opWrite, opStatfs        = 14, 15, 16, 17
	opRelease, opFlush, opInit               = 18, 25, 26
	opOpendir, opReaddir, opReleasedir       = 27, 28, 29
	opDestroy, opForgets                     = 38, 42
)

var native = binary.NativeEndian

// server answers the kernel's requests. A node is a path and, so that what was removed
// stays removed for who has it open, the number under which it was made.
type server struct {
	*Kernel
	fd    int
	paths map[uint64]string
	ids   map[string]uint64
	next  uint64
}

// Mount mounts the file system on dir, until unmount is called.
func (k *Kernel) Mount(dir string) (unmount func(), err error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	options := fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other,default_permissions", fd)
	if err := unix.Mount("resctrl", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "mount", Path: dir, Err: err}
	}
	s := &server{k, fd, map[uint64]string{1: ""}, map[string]uint64{"": 1}, 2}
	done := make(chan struct{})
	go s.serve(done)
	if err := refusePolls(dir); err != nil {
		return nil, err
	}
	return func() {
		unix.Unmount(dir, unix.MNT_DETACH)
		<-done
		unix.Close(fd)
	}, nil
}

// refusePolls has the kernel learn that the file system cannot be polled. Go asks that of
// every file that it opens, by a system call during which its scheduler stands still: a
// process that also serves the file system could wait for itself, for ever.
func refusePolls(dir string) error {
	fd, err := unix.Open(dir+"/tasks", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir + "/tasks", Err: err}
	}
	defer unix.Close(fd)
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return err
}

func (s *server) serve(done chan struct{}) {
	defer close(done)
	buf := make([]byte, 128<<10)
	for {
		n, err := unix.Read(s.fd, buf)
		switch {
		case err == unix.EINTR || err == unix.ENOENT || err == unix.EAGAIN:
			continue
		case err != nil || n < 40: // ENODEV: unmounted
			return
		}
		s.answer(buf[:n])
	}
}

var errNoAnswer = errors.New("a request that wants no answer")

func (s *server) answer(request []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := s.handle(native.Uint32(request[4:]), native.Uint64(request[16:]), request[40:])
	if err == errNoAnswer {
		return
	}
	head := make([]byte, 16, 16+len(body))
	if errno, ok := err.(unix.Errno); ok && errno != 0 {
		native.PutUint32(head[4:], uint32(-int32(errno)))
		body = nil
	}
	copy(head[8:], request[8:16])
	native.PutUint32(head, uint32(16+len(body)))
	unix.Write(s.fd, append(head, body...))
}

func (s *server) handle(op uint32, node uint64, arg []byte) ([]byte, error) {
	switch op {
	case opForget, opForgets:
		return nil, errNoAnswer
	case opRelease, opReleasedir, opFlush, opDestroy:
		return nil, nil
	case opInit:
		out := make([]byte, 64)
		native.PutUint32(out, 7)
		native.PutUint32(out[4:], 31)
		native.PutUint32(out[20:], 64<<10) // max_write
		return out, nil
	}
	path, ok := s.paths[node]
	if !ok {
		return nil, unix.ENODEV
	}
	switch op {
	case opLookup:
		return s.entry(join(path, cstring(arg)))
	case opMkdir:
		name := join(path, cstring(arg[8:]))
		if errno := s.mkdir(name); errno != 0 {
			return nil, errno
		}
		return s.entry(name)
	case opRmdir:
		return nil, s.remove(join(path, cstring(arg)))
	case opGetattr, opSetattr:
		return append(make([]byte, 16), s.attr(node, path)...), nil
	case opOpen, opOpendir:
		out := make([]byte, 16)
		native.PutUint32(out[8:], 1) // FOPEN_DIRECT_IO
		return out, nil
	case opRead:
		return window(s.read(path), arg), nil
	case opReaddir:
		return s.entries(path, arg), nil
	case opWrite:
		size := native.Uint32(arg[16:])
		if errno := s.write(path, string(arg[40:40+size])); errno != 0 {
			return nil, errno
		}
		out := make([]byte, 8)
		native.PutUint32(out, size)
		return out, nil
	case opStatfs:
		return make([]byte, 80), nil
	}
	return nil, unix.ENOSYS
}

func join(dir, name string) string { return strings.TrimPrefix(dir+"/"+name, "/") }

func cstring(b []byte) string {
	name, _, _ := bytes.Cut(b, []byte{0})
	return string(name)
}

// window is the part of a text that a read asks for.
func window(text string, arg []byte) []byte {
	offset, size := native.Uint64(arg[8:]), uint64(native.Uint32(arg[16:]))
	offset = min(offset, uint64(len(text)))
	return []byte(text[offset:min(offset+size, uint64(len(text)))])
}

// remove forgets the numbers of a group and all that was in it.
func (s *server) remove(path string) error {
	if errno := s.rmdir(path); errno != 0 {
		return errno
	}
	for p, id := range s.ids {
		if p == path || strings.HasPrefix(p, path+"/") {
			delete(s.ids, p)
			delete(s.paths, id)
		}
	}
	return nil
}

// entry answers who looks for a path.
func (s *server) entry(path string) ([]byte, error) {
	dir, name := split(path)
	siblings := s.list(dir)
	if !slices.Contains(siblings, name) && !slices.Contains(siblings, name+"/") {
		return nil, unix.ENOENT
	}
	id := s.ids[path]
	if id == 0 {
		id = s.next
		s.next++
		s.ids[path], s.paths[id] = id, path
	}
	out := make([]byte, 40)
	native.PutUint64(out, id)
	return append(out, s.attr(id, path)...), nil
}

// attr is a struct fuse_attr.
func (s *server) attr(id uint64, path string) []byte {
	mode := uint32(unix.S_IFREG | 0o644)
	switch {
	case s.list(path) != nil:
		mode = unix.S_IFDIR | 0o755
	case strings.HasPrefix(path, "info/"):
		mode = unix.S_IFREG | 0o444
	}
	out := make([]byte, 88)
	native.PutUint64(out, id)
	native.PutUint32(out[60:], mode)
	native.PutUint32(out[64:], 1) // links
	return out
}

// entries is a directory's content, struct fuse_dirent by struct fuse_dirent.
func (s *server) entries(path string, arg []byte) (out []byte) {
	offset, size := native.Uint64(arg[8:]), int(native.Uint32(arg[16:]))
	names := append([]string{"./", "../"}, s.list(path)...)
	for i := int(offset); i < len(names); i++ {
		kind := uint32(unix.DT_REG)
		name, dir := strings.CutSuffix(names[i], "/")
		if dir {
			kind = unix.DT_DIR
		}
		e := make([]byte, 24, 24+len(name)+8)
		native.PutUint64(e, 1<<32) // nobody asks for its inode
		native.PutUint64(e[8:], uint64(i+1))
		native.PutUint32(e[16:], uint32(len(name)))
		native.PutUint32(e[20:], kind)
		e = append(e, name...)
		e = append(e, make([]byte, (8-len(name)%8)%8)...)
		if len(out)+len(e) > size {
			break
		}
		out = append(out, e...)
	}
	return out
}
