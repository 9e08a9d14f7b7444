package rootfs

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// kind says which part of a mount an option word speaks about.
type kind uint8

const (
	kindNone        kind = iota // accepted, nothing to do
	kindAttr                    // attribute of the mount
	kindAtime                   // takes an access time policy back, to relatime
	kindRAttr                   // the same two for the whole tree
	kindRAtime                  //
	kindFlag                    // one of our flags
	kindSuper                   // flag of the filesystem, for fsconfig(2)
	kindPropagation             // propagation type
)

// option is one word of mounts[].options: what it sets and what it clears.
type option struct {
	name     string
	kind     kind
	set, clr uint64
}

const (
	attrRO       = unix.MOUNT_ATTR_RDONLY
	attrNosuid   = unix.MOUNT_ATTR_NOSUID
	attrNodev    = unix.MOUNT_ATTR_NODEV
	attrNoexec   = unix.MOUNT_ATTR_NOEXEC
	attrAtime    = unix.MOUNT_ATTR__ATIME
	attrRelatime = unix.MOUNT_ATTR_RELATIME
	attrNoatime  = unix.MOUNT_ATTR_NOATIME
	attrStrict   = unix.MOUNT_ATTR_STRICTATIME
	attrNodir    = unix.MOUNT_ATTR_NODIRATIME
	attrNosym    = unix.MOUNT_ATTR_NOSYMFOLLOW
)

// optionTable is every word of the specification that is not data for the
// filesystem, sorted by name (a test holds it so).
//
// A later word wins over an earlier one. The three access time policies are one
// field of the mount (MOUNT_ATTR__ATIME), of which the kernel wants all bits
// cleared when any is set. "silent" and "loud" only concern the kernel's log;
// "iversion" cannot be asked for by fsconfig(2) and is up to the filesystem.
var optionTable = [...]option{
	{"async", kindSuper, 0, 0},
	{"atime", kindAtime, attrNoatime, 0},
	{"bind", kindFlag, FlagBind, 0},
	{"copy-symlink", kindFlag, FlagCopyLink, 0},
	{"defaults", kindNone, 0, 0},
	{"dev", kindAttr, 0, attrNodev},
	{"diratime", kindAttr, 0, attrNodir},
	{"dirsync", kindSuper, 0, 0},
	{"exec", kindAttr, 0, attrNoexec},
	{"idmap", kindFlag, FlagIDMap, 0},
	{"iversion", kindNone, 0, 0},
	{"lazytime", kindSuper, 0, 0},
	{"loud", kindNone, 0, 0},
	{"mand", kindSuper, 0, 0},
	{"noatime", kindAttr, attrNoatime, attrAtime},
	{"nodev", kindAttr, attrNodev, 0},
	{"nodiratime", kindAttr, attrNodir, 0},
	{"noexec", kindAttr, attrNoexec, 0},
	{"noiversion", kindNone, 0, 0},
	{"nolazytime", kindSuper, 0, 0},
	{"nomand", kindSuper, 0, 0},
	{"norelatime", kindAtime, attrRelatime, 0},
	{"nostrictatime", kindAtime, attrStrict, 0},
	{"nosuid", kindAttr, attrNosuid, 0},
	{"nosymfollow", kindAttr, attrNosym, 0},
	{"private", kindPropagation, unix.MS_PRIVATE, 0},
	{"ratime", kindRAtime, attrNoatime, 0},
	{"rbind", kindFlag, FlagBind | FlagRec, 0},
	{"rdev", kindRAttr, 0, attrNodev},
	{"rdiratime", kindRAttr, 0, attrNodir},
	{"relatime", kindAttr, attrRelatime, attrAtime},
	{"remount", kindFlag, FlagRemount, 0},
	{"rexec", kindRAttr, 0, attrNoexec},
	{"ridmap", kindFlag, FlagIDMap | FlagIDRec, 0},
	{"rnoatime", kindRAttr, attrNoatime, attrAtime},
	{"rnodev", kindRAttr, attrNodev, 0},
	{"rnodiratime", kindRAttr, attrNodir, 0},
	{"rnoexec", kindRAttr, attrNoexec, 0},
	{"rnorelatime", kindRAtime, attrRelatime, 0},
	{"rnostrictatime", kindRAtime, attrStrict, 0},
	{"rnosuid", kindRAttr, attrNosuid, 0},
	{"rnosymfollow", kindRAttr, attrNosym, 0},
	{"ro", kindAttr, attrRO, 0},
	{"rprivate", kindPropagation, unix.MS_PRIVATE | unix.MS_REC, 0},
	{"rrelatime", kindRAttr, attrRelatime, attrAtime},
	{"rro", kindRAttr, attrRO, 0},
	{"rrw", kindRAttr, 0, attrRO},
	{"rshared", kindPropagation, unix.MS_SHARED | unix.MS_REC, 0},
	{"rslave", kindPropagation, unix.MS_SLAVE | unix.MS_REC, 0},
	{"rstrictatime", kindRAttr, attrStrict, attrAtime},
	{"rsuid", kindRAttr, 0, attrNosuid},
	{"rsymfollow", kindRAttr, 0, attrNosym},
	{"runbindable", kindPropagation, unix.MS_UNBINDABLE | unix.MS_REC, 0},
	{"rw", kindAttr, 0, attrRO},
	{"scratch", kindFlag, FlagScratch, 0},
	{"shared", kindPropagation, unix.MS_SHARED, 0},
	{"silent", kindNone, 0, 0},
	{"slave", kindPropagation, unix.MS_SLAVE, 0},
	{"src-nosymlinks", kindFlag, FlagRealSource, 0},
	{"strictatime", kindAttr, attrStrict, attrAtime},
	{"suid", kindAttr, 0, attrNosuid},
	{"symfollow", kindAttr, 0, attrNosym},
	{"sync", kindSuper, 0, 0},
	{"tmpcopyup", kindFlag, FlagCopyUp, 0},
	{"unbindable", kindPropagation, unix.MS_UNBINDABLE, 0},
}

// MountOptions lists the option words that are understood, sorted.
func MountOptions() []string {
	names := make([]string, len(optionTable))
	for i := range optionTable {
		names[i] = optionTable[i].name
	}
	return names
}

func findOption(name string) (option, bool) {
	i, ok := slices.BinarySearchFunc(optionTable[:], name, func(o option, name string) int {
		return strings.Compare(o.name, name)
	})
	if !ok {
		return option{}, false
	}
	return optionTable[i], true
}

// option adds one word to the step. It reports whether the word is known and
// not the filesystem's own affair.
func (s *Step) option(word string) bool {
	o, ok := findOption(word)
	if !ok {
		return false
	}
	switch o.kind {
	case kindAttr:
		s.Set, s.Clr = change(s.Set, s.Clr, o.set, o.clr)
	case kindRAttr:
		s.RSet, s.RClr = change(s.RSet, s.RClr, o.set, o.clr)
	case kindAtime:
		s.Set, s.Clr = takeBack(s.Set, s.Clr, o.set)
	case kindRAtime:
		s.RSet, s.RClr = takeBack(s.RSet, s.RClr, o.set)
	case kindFlag:
		s.Flags |= o.set
	case kindPropagation:
		s.Propagation = o.set
	case kindNone, kindSuper:
	}
	return true
}

func change(set, clr, on, off uint64) (uint64, uint64) {
	return set&^off | on, clr&^on | off
}

// takeBack undoes one access time policy, leaving another one that was asked
// for. As with mount(2), what then applies is relatime.
func takeBack(set, clr, policy uint64) (uint64, uint64) {
	if clr&attrAtime != 0 && set&attrAtime != policy {
		return set, clr
	}
	return change(set, clr, attrRelatime, attrAtime)
}

// attrNames appends the option words for attributes.
func attrNames(words []string, prefix string, set, clr uint64) []string {
	for i := range optionTable {
		o := &optionTable[i]
		if o.kind != kindAttr {
			continue
		}
		var hit bool
		switch {
		case o.clr == attrAtime:
			hit = clr&attrAtime != 0 && set&attrAtime == o.set
		case o.set != 0:
			hit = set&o.set != 0
		default:
			hit = clr&o.clr != 0
		}
		if hit {
			words = append(words, prefix+o.name)
		}
	}
	return words
}

// propagation looks up one of the eight words for a propagation type.
func propagation(word string) (uint64, bool) {
	o, ok := findOption(word)
	return o.set, ok && o.kind == kindPropagation
}

func propagationName(p uint64) string {
	for i := range optionTable {
		if o := &optionTable[i]; o.kind == kindPropagation && o.set == p {
			return o.name
		}
	}
	return "unchanged"
}

// splitData takes "a=1,b=2" apart, as mount(2) would. A comma after a backslash
// (overlay's lowerdir) or inside quotes (an SELinux context) stays; the quotes, which
// only mount(2) needs, do not.
func splitData(word string) []string {
	var parts []string
	quoted, start := false, 0
	for i := 0; i < len(word); i++ {
		switch word[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case ',':
			if !quoted {
				parts = append(parts, word[start:i])
				start = i + 1
			}
		}
	}
	parts = append(parts, word[start:])
	for i, p := range parts {
		if key, value, ok := strings.Cut(p, "=\""); ok && strings.HasSuffix(key, "context") {
			parts[i] = key + "=" + strings.TrimSuffix(value, "\"")
		}
	}
	return slices.DeleteFunc(parts, func(p string) bool { return p == "" })
}
