package rootfs

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Op says what a step does.
type Op uint8

// The operations, in about the order in which they appear in a plan.
const (
	OpPropagation     Op = iota + 1 // set Propagation on "/" of the new mount namespace
	OpRoot                          // attach the container's root filesystem
	OpNull                          // set aside a null device to mask files with
	OpMount                         // mount on Target
	OpDevice                        // device node, FIFO, or a bind mount of the host's
	OpSymlink                       // symbolic link with the text Source
	OpConsole                       // new terminal from the container's devpts, bound on Target
	OpPivot                         // the container's root becomes "/", the old one goes
	OpMove                          // the same without pivot_root(2)
	OpChroot                        // without a mount namespace: enter Source, or what the parent opened
	OpStdio                         // reopen descriptors 0-2 that are the host's null device
	OpReadonly                      // make Target read-only
	OpMask                          // hide Target
	OpSeal                          // make the tmpfs on Target read-only, now that all is in place
	OpRootReadonly                  // make "/" read-only
	OpRootPropagation               // set Propagation on "/"
)

// Flags of a step.
const (
	FlagBind       uint64 = 1 << iota // bind mount of Source
	FlagRec                           // with everything that is mounted below Source
	FlagRemount                       // change what is mounted on Target
	FlagCopyUp                        // fill the tmpfs with what Target held
	FlagReal                          // Target must not lead through a symbolic link
	FlagSeal                          // read-only is left to a later OpSeal
	FlagUserNS                        // runs inside a user namespace
	FlagCgroup                        // if not permitted: bind Source, the container's cgroup
	FlagHost                          // if not permitted: bind the host's /proc, /sys or /dev/mqueue
	FlagHostCgroup                    // bind the host's cgroup2, do not mount it anew
	FlagEntered                       // Spawn has made the container's root "/" already
	FlagIDMap                         // id-mapped, as IDMap says
	FlagIDRec                         // with everything that is mounted below
	FlagNode                          // device: not the host's, but one that the parent makes
	FlagOptional                      // not where Target is missing and cannot be made
	FlagScratch                       // overlay: what is written goes to the tmpfs that was put on "/"
	FlagCopyLink                      // a source that is a symbolic link is copied, not followed
	FlagRealSource                    // bind mount: Source must not lead through a symbolic link
)

// Step is one action on the way to a container's filesystem. It is plain data:
// the parent compiles it, the child applies it.
type Step struct {
	Op    Op
	Field string // JSON pointer of the configuration field it comes from

	Source string   // bind: host path; filesystem: its source; symlink: its text
	Target string   // path inside the container, absolute and clean
	Type   string   // filesystem type
	Data   []string // options for the filesystem, each KEY or KEY=VALUE

	Set, Clr    uint64 // MOUNT_ATTR_* to set and clear on the mount itself
	RSet, RClr  uint64 // the same for the whole tree
	Propagation uint64 // MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE, with MS_REC

	Flags    uint64 // Flag*
	Mode     uint32 // device: type and permissions, as for mknod(2)
	UID, GID uint32 // device: owner
	Dev      uint64 // device: number

	FD bool // the parent opens it (Open) and sends the descriptor along

	// What follows only concerns Open, and does not travel to the child.

	IDMap  *IDMap               // mapping of an id-mapped mount, else nil
	Within specs.LinuxNamespace // to be called in this namespace, if it has a path
}

// IDMap says how an id-mapped mount shows the ids of its files: as the initial
// user namespace shows the ids of one with these maps. If both are empty, that is
// the container's.
type IDMap struct{ UIDs, GIDs []specs.LinuxIDMapping }

func (s *Step) has(flag uint64) bool { return s.Flags&flag != 0 }

// String describes the step in one line.
func (s *Step) String() string {
	switch s.Op {
	case OpPropagation:
		return "make every mount " + propagationName(s.Propagation)
	case OpRoot:
		if s.has(FlagEntered) {
			return "root filesystem " + s.Source + s.options() + ", entered at birth"
		}
		return "root filesystem " + s.Source + s.options()
	case OpNull:
		return "set aside a null device" + s.options()
	case OpMount:
		return s.mountString()
	case OpDevice:
		return s.deviceString()
	case OpSymlink:
		return "symlink " + s.Target + " -> " + s.Source
	case OpConsole:
		if s.Target == "" {
			return "console from the host"
		}
		return "console on " + s.Target
	case OpPivot:
		if s.has(FlagEntered) {
			return "pivot root if a mount covers it"
		}
		return "pivot root"
	case OpMove:
		return "move root to / without pivot"
	case OpChroot:
		return "chroot " + s.Source
	case OpStdio:
		return "reopen null stdio inside"
	case OpReadonly:
		return "read-only " + s.Target
	case OpMask:
		return "mask " + s.Target + s.options()
	case OpSeal:
		return "seal " + s.Target
	case OpRootReadonly:
		return "read-only /"
	case OpRootPropagation:
		return "make / " + propagationName(s.Propagation)
	}
	return "op " + strconv.Itoa(int(s.Op))
}

func (s *Step) mountString() string {
	var b strings.Builder
	switch {
	case s.has(FlagRemount):
		b.WriteString("remount " + s.Target)
	case s.has(FlagBind | FlagRec):
		b.WriteString("bind " + s.Source + " on " + s.Target)
	default:
		b.WriteString("mount " + s.Type)
		if s.Source != "" && s.Source != s.Type {
			b.WriteString(" " + s.Source)
		}
		b.WriteString(" on " + s.Target)
	}
	return b.String() + s.options()
}

func (s *Step) deviceString() string {
	if s.has(FlagBind) && !s.has(FlagNode) {
		return "bind device " + s.Source + " on " + s.Target
	}
	kind := "c"
	switch s.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		kind = "b"
	case unix.S_IFIFO:
		kind = "p"
	}
	text := "device " + s.Target + " " + kind
	if kind != "p" {
		text += " " + strconv.Itoa(int(unix.Major(s.Dev))) + ":" + strconv.Itoa(int(unix.Minor(s.Dev)))
	}
	return text + " mode " + strconv.FormatUint(uint64(s.Mode&^unix.S_IFMT), 8) +
		" owner " + strconv.FormatUint(uint64(s.UID), 10) + ":" + strconv.FormatUint(uint64(s.GID), 10)
}

// options is the parenthesised list of flags and data.
func (s *Step) options() string {
	words := attrNames(nil, "", s.Set, s.Clr)
	words = attrNames(words, "r", s.RSet, s.RClr)
	if s.Propagation != 0 {
		words = append(words, propagationName(s.Propagation))
	}
	for _, f := range flagNames {
		if s.has(f.flag) {
			words = append(words, f.name)
		}
	}
	if n := s.Within; n.Path != "" {
		words = append(words, "of the "+string(n.Type)+" namespace "+n.Path)
	}
	if s.IDMap != nil {
		words = s.IDMap.words(words, s.has(FlagIDRec))
	}
	words = append(words, s.Data...)
	if len(words) == 0 {
		return ""
	}
	return " (" + strings.Join(words, ",") + ")"
}

var flagNames = [...]struct {
	flag uint64
	name string
}{
	{FlagRec, "recursive"},
	{FlagCopyUp, "tmpcopyup"},
	{FlagReal, "no symlinks"},
	{FlagSeal, "ro at the end"},
	{FlagCgroup, "or own cgroup"},
	{FlagHost, "or the host's"},
	{FlagHostCgroup, "the host's"},
	{FlagOptional, "if possible"},
	{FlagScratch, "scratch"},
	{FlagRealSource, "no symlinks in the source"},
}

// words appends the ranges of the maps, each FIRST:FIRST:SIZE as on the filesystem
// and as seen.
func (m *IDMap) words(words []string, recursive bool) []string {
	if recursive {
		words = append(words, "ridmap")
	} else {
		words = append(words, "idmap")
	}
	for _, kind := range [...]struct {
		name   string
		ranges []specs.LinuxIDMapping
	}{{"uids ", m.UIDs}, {"gids ", m.GIDs}} {
		for _, r := range kind.ranges {
			words = append(words, fmt.Sprintf("%s%d:%d:%d", kind.name, r.ContainerID, r.HostID, r.Size))
		}
	}
	return words
}

// FieldError is a mistake in one field of the configuration.
type FieldError struct {
	Field string // JSON pointer
	Path  string // path inside the container or on the host, if one is concerned
	Err   error
}

func (e *FieldError) Error() string {
	if e.Path == "" {
		return e.Field + ": " + e.Err.Error()
	}
	return e.Field + ": " + e.Path + ": " + e.Err.Error()
}

// Unwrap returns the reason.
func (e *FieldError) Unwrap() error { return e.Err }
