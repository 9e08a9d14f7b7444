package rootfs

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Proc is a procfs that nothing in the container can cover or redirect. It is
// mounted nowhere, and shows processes only (subset=pid): should it leak, there
// is no /proc/sys in it to break out with.
type Proc struct {
	fd  int
	err error // why there is none; every use returns it
}

var (
	errProcfs = errors.New("/proc of the host is not a procfs")
	errName   = errors.New("is not the name of a kernel parameter")
)

// Proc returns the private procfs, of the PID namespace of the caller. It is
// made at the first call, at the latest by OpPivot: in a user namespace the
// kernel gives a new one only to those who still see one whole.
func (r *Root) Proc() *Proc {
	if r.proc == nil {
		fd, err := openProc("subset=pid")
		r.proc = &Proc{fd, fact("mount", "proc", err)}
	}
	return r.proc
}

// UseProc has the procfs in fd used, which the caller vouches for, by a process that is
// in no PID namespace that it could mount a procfs of.
func (r *Root) UseProc(fd int) { r.proc = &Proc{fd: fd} }

// openProc makes a procfs. Where the kernel refuses that to a user namespace,
// it is what the host has on /proc, before anybody else could touch it.
func openProc(option ...string) (int, error) {
	const attrs = attrNosuid | attrNodev | attrNoexec
	fd, err := newMount("proc", "proc", option, attrs)
	if err == nil {
		return fd, nil
	}
	host, herr := openat(unix.AT_FDCWD, "/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if herr != nil {
		return -1, errors.Join(err, herr)
	}
	magic, herr := fsMagic(host)
	st, serr := statx(host, "", 0)
	if herr != nil || serr != nil || magic != unix.PROC_SUPER_MAGIC || st.Ino != procRootInode {
		shut(host)
		return -1, errors.Join(err, errProcfs)
	}
	// A clone loses what is mounted over files in it. The kernel refuses it when
	// those are locked; RESOLVE_NO_XDEV then keeps us off them.
	if fd, err := clone(host, 0); err == nil {
		shut(host)
		return fd, nil
	}
	return host, nil
}

// Open opens a file of the procfs, such as "thread-self/attr/exec". Mounts and
// magic links on the way are refused.
func (p *Proc) Open(path string, flags int) (int, error) {
	if p.err != nil {
		return -1, p.err
	}
	how := unix.OpenHow{
		Flags:   uint64(flags),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for range maxRetries {
		fd, err := openat2(p.fd, path, &how)
		if err != unix.EAGAIN {
			return fd, fact("open", "/proc/"+path, err)
		}
	}
	return -1, fact("open", "/proc/"+path, unix.EAGAIN)
}

// Write writes data to a file with one write(2).
func (p *Proc) Write(path, data string) error {
	fd, err := p.Open(path, unix.O_WRONLY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer shut(fd)
	_, err = write(fd, []byte(data))
	return fact("write", "/proc/"+path, err)
}

// Read reads a file, at most limit bytes of it.
func (p *Proc) Read(path string, limit int) ([]byte, error) {
	fd, err := p.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer shut(fd)
	data, err := readAll(fd, limit)
	return data, fact("read", "/proc/"+path, err)
}

// Readlink reads a symbolic link, magic or not, without following it.
func (p *Proc) Readlink(path string) (string, error) {
	fd, err := p.Open(path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", err
	}
	defer shut(fd)
	text, err := readlinkat(fd, "")
	return text, fact("readlink", "/proc/"+path, err)
}

// reopen opens the inode that fd refers to, whatever its name leads to by now.
// It is the one place where a magic link is followed: our own.
func (p *Proc) reopen(fd, flags int) (int, error) {
	if p.err != nil {
		return -1, p.err
	}
	return openat(p.fd, "thread-self/fd/"+strconv.Itoa(fd), flags)
}

// Sysctl sets one kernel parameter of the namespaces of the caller. In a user
// namespace it must come before the container's /proc is masked.
func (p *Proc) Sysctl(name, value string) error {
	path, ok := SysctlPath(name)
	if !ok {
		return fact("sysctl", name, errName)
	}
	// A second instance, whole and closed at once: leaked, it would give the
	// container all of the host's /proc/sys.
	fd, err := openProc()
	if err != nil {
		return fact("sysctl", name, err)
	}
	defer shut(fd)
	return (&Proc{fd: fd}).Write("sys/"+path, value)
}

// SysctlPath turns a name of either style into the path below /proc/sys, as sysctl(8)
// does: whichever of "." and "/" comes first separates, and the other stands for a "."
// in a component ("net/ipv4/conf/eth0.1/mtu" is "net.ipv4.conf.eth0/1.mtu"). A name
// that would step out of its directory is refused.
func SysctlPath(name string) (path string, ok bool) {
	path = name
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '.' {
		path = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, name)
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, " \t\n\x00") {
			return "", false
		}
	}
	if !strings.Contains(path, "/") {
		return "", false
	}
	return path, true
}
