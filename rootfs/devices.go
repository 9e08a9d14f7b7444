package rootfs

import (
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What the specification wants in every container's /dev.
var (
	defaultNodes = [...]struct {
		path         string
		major, minor uint32
	}{
		{"/dev/null", 1, 3},
		{"/dev/zero", 1, 5},
		{"/dev/full", 1, 7},
		{"/dev/random", 1, 8},
		{"/dev/urandom", 1, 9},
		{"/dev/tty", 5, 0},
	}
	defaultLinks = [...]struct{ path, text string }{
		{"/dev/ptmx", "pts/ptmx"},
		{"/dev/fd", "/proc/self/fd"},
		{"/dev/stdin", "/proc/self/fd/0"},
		{"/dev/stdout", "/proc/self/fd/1"},
		{"/dev/stderr", "/proc/self/fd/2"},
	}
)

// devices compiles the default devices and links, then the configured ones,
// which replace a default of the same path.
func (c *compiler) devices() {
	taken := make([]string, 0, len(c.linux.Devices))
	for i := range c.linux.Devices {
		taken = append(taken, inside(c.linux.Devices[i].Path))
	}
	free := func(p string) bool {
		for _, t := range taken {
			if t == p {
				return false
			}
		}
		return true
	}
	for _, d := range defaultNodes {
		if free(d.path) {
			s := Step{Op: OpDevice, Field: "/linux/devices", Target: d.path}
			c.node(s, unix.S_IFCHR|0o666, unix.Mkdev(d.major, d.minor))
		}
	}
	for _, l := range defaultLinks {
		if free(l.path) {
			c.early = append(c.early, Step{Op: OpSymlink, Field: "/linux/devices", Target: l.path, Source: l.text})
		}
	}
	for i := range c.linux.Devices {
		c.device(at("/linux/devices", i), &c.linux.Devices[i])
	}
}

func (c *compiler) device(field string, d *specs.LinuxDevice) {
	s := Step{Op: OpDevice, Field: field, Target: inside(d.Path)}
	if d.Path == "" || s.Target == "/" {
		c.fail(field+"/path", d.Path, "is not a path for a device")
		return
	}
	var format uint32
	switch d.Type {
	case "c", "u":
		format = unix.S_IFCHR
	case "b":
		format = unix.S_IFBLK
	case "p":
		format = unix.S_IFIFO
	default:
		c.fail(field+"/type", d.Path, strconv.Quote(d.Type)+" is not one of c, b, u, p")
		return
	}
	mode := format | 0o666
	if d.FileMode != nil {
		mode = format | fileMode(*d.FileMode)
	}
	if d.UID != nil {
		s.UID = *d.UID
	}
	if d.GID != nil {
		s.GID = *d.GID
	}
	var dev uint64
	if format != unix.S_IFIFO {
		if d.Major < 0 || d.Major >= 1<<12 || d.Minor < 0 || d.Minor >= 1<<20 {
			c.fail(field, d.Path, "the kernel has majors up to 4095 and minors up to 1048575")
			return
		}
		dev = unix.Mkdev(uint32(d.Major), uint32(d.Minor))
	}
	c.node(s, mode, dev)
	if last := &c.early[len(c.early)-1]; last.has(FlagBind) && (d.FileMode != nil || d.UID != nil || d.GID != nil) {
		c.ownNode(last)
	}
}

// fileMode keeps the permission bits. The field is a number as in stat(2), so
// set-id and sticky are where the kernel has them, not where package os does.
func fileMode(m os.FileMode) uint32 { return uint32(m) & 0o7777 }

// node appends a device, made by mknod(2) or, in a user namespace where that is
// not allowed, bound from the host.
func (c *compiler) node(s Step, mode uint32, dev uint64) {
	s.Mode, s.Dev = mode, dev
	if c.UserNS && mode&unix.S_IFMT != unix.S_IFIFO {
		s = c.hostDevice(s, s.Target, mode, dev)
	}
	c.early = append(c.early, s)
}

// hostDevice turns s into a step that uses the host's device.
func (c *compiler) hostDevice(s Step, source string, mode uint32, dev uint64) Step {
	s.Source, s.Mode, s.Dev = source, mode, dev
	s.Flags |= FlagBind | FlagUserNS
	s.FD = c.Privileged
	return s
}
