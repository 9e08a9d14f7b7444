package runtime

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/rootfs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func namespaceNames() []specs.LinuxNamespaceType {
	names := make([]specs.LinuxNamespaceType, len(namespaceFlags))
	for i := range namespaceFlags {
		names[i] = namespaceFlags[i].name
	}
	return names
}

// namespaceFile is the path of husk's own namespace of a type.
func namespaceFile(kind specs.LinuxNamespaceType) string {
	switch kind {
	case specs.NetworkNamespace:
		kind = "net"
	case specs.MountNamespace:
		kind = "mnt"
	}
	return "/proc/self/ns/" + string(kind)
}

func (v *validator) namespaces() {
	const field = "/linux/namespaces"
	list := v.linux.Namespaces
	for i, n := range list {
		oneOf(v, item(field, i, "type"), n.Type, "a namespace type", namespaceNames()...)
		if n.Path != "" {
			v.absolute(item(field, i, "path"), n.Path)
		}
		for j := range i {
			if list[j].Type == n.Type {
				v.bad(item(field, i, "type"), quote(string(n.Type))+" is already given by "+item(field, j), "keep one of them")
				break
			}
		}
	}
}

// namespace returns the entry of a type, nil when the caller's is inherited.
func (v *validator) namespace(kind specs.LinuxNamespaceType) *specs.LinuxNamespace {
	for i := range v.linux.Namespaces {
		if v.linux.Namespaces[i].Type == kind {
			return &v.linux.Namespaces[i]
		}
	}
	return nil
}

func (v *validator) has(kind specs.LinuxNamespaceType) bool { return v.namespace(kind) != nil }

func (v *validator) isNew(kind specs.LinuxNamespaceType) bool {
	n := v.namespace(kind)
	return n != nil && n.Path == ""
}

// separate tells whether the namespace is not husk's own: a path may well lead back to
// it (/proc/1/ns/net), and what is set there would be set on the host (CVE-2022-0811).
func (v *validator) separate(kind specs.LinuxNamespaceType) bool {
	n := v.namespace(kind)
	if n == nil || n.Path == "" {
		return n != nil
	}
	return !isOurs(kind, n.Path)
}

// isOurs tells whether a path leads to husk's own namespace of a type.
func isOurs(kind specs.LinuxNamespaceType, path string) bool {
	var own, other unix.Stat_t
	if unix.Stat(namespaceFile(kind), &own) != nil {
		return true
	}
	if unix.Stat(path, &other) != nil {
		return false // joining it will fail, and say why
	}
	return own.Dev == other.Dev && own.Ino == other.Ino
}

// maxRanges is how many lines the kernel takes in uid_map (user_namespaces(7)).
const maxRanges = 340

func (v *validator) mappings() {
	const uids, gids = "/linux/uidMappings", "/linux/gidMappings"
	l := v.linux
	if len(l.UIDMappings) == 0 && len(l.GIDMappings) == 0 {
		if v.isNew(specs.UserNamespace) {
			v.warn(uids, "is missing, so nobody in the user namespace can own a file", "map container id 0 with uidMappings and gidMappings")
		}
		return
	}
	switch n := v.namespace(specs.UserNamespace); {
	case n == nil:
		v.bad(uids, "needs a user namespace", "add {\"type\": \"user\"} to /linux/namespaces")
	case n.Path != "":
		v.warn(uids, "is not applied, as the user namespace "+quote(n.Path)+" has its own", "remove it")
	}
	v.pair(uids, l.UIDMappings, gids, l.GIDMappings)
}

// pair checks the two lists of a user namespace or mount, which go together.
func (v *validator) pair(uidField string, uids []specs.LinuxIDMapping, gidField string, gids []specs.LinuxIDMapping) {
	if len(uids) == 0 {
		v.bad(uidField, "is missing, while "+gidField+" is given", "give both")
	}
	if len(gids) == 0 {
		v.bad(gidField, "is missing, while "+uidField+" is given", "give both")
	}
	v.ranges(uidField, uids)
	v.ranges(gidField, gids)
}

func (v *validator) ranges(field string, list []specs.LinuxIDMapping) {
	if len(list) > maxRanges {
		v.bad(field, fmt.Sprintf("has %d ranges", len(list)), fmt.Sprintf("write at most %d, which is what the kernel takes", maxRanges))
		return
	}
	for i, m := range list {
		if m.Size == 0 {
			v.bad(item(field, i, "size"), "is 0", "write how many ids to map")
		}
		if overflows(m.ContainerID, m.Size) || overflows(m.HostID, m.Size) {
			v.bad(item(field, i), "goes beyond the id 4294967294", "lower its size")
		}
		for j, other := range list[:i] {
			if overlap(m.ContainerID, m.Size, other.ContainerID, other.Size) {
				v.bad(item(field, i, "containerID"), "overlaps with "+item(field, j), "map each id once")
			}
			if overlap(m.HostID, m.Size, other.HostID, other.Size) {
				v.bad(item(field, i, "hostID"), "overlaps with "+item(field, j), "map each id once")
			}
		}
	}
}

func overflows(first, size uint32) bool { return uint64(first)+uint64(size) > math.MaxUint32 }

func overlap(a, sizeA, b, sizeB uint32) bool {
	return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
}

// sorted returns the keys of m, in an order that makes reports repeat.
func sorted[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

// sysctls lets through only settings that belong to a namespace of the container.
func (v *validator) sysctls() {
	const field = "/linux/sysctl"
	paths := make([]string, 0, len(v.linux.Sysctl))
	for _, name := range sorted(v.linux.Sysctl) {
		at := pointer(field, name)
		path, ok := rootfs.SysctlPath(name)
		switch {
		case !ok:
			v.bad(at, "is not the name of a setting", "write it as in \"net.ipv4.ip_forward\"")
			continue
		case slices.Contains(paths, path):
			v.bad(at, "is given twice, once with . and once with /", "keep one of them")
		}
		paths = append(paths, path)
		v.sysctlScope(at, path)
		if strings.ContainsAny(v.linux.Sysctl[name], "\n+") {
			v.bad(at, "has a value with a line break or +", "write one value for one setting")
		}
	}
}

func (v *validator) sysctlScope(field, path string) {
	if path == "kernel/hostname" {
		v.bad(field, "is set by another property", "use /hostname")
		return
	}
	kind := sysctlNamespace(path)
	switch {
	case kind == "":
		v.bad(field, "belongs to no namespace, so it would change the host", "set it on the host")
	case !v.has(kind):
		v.bad(field, "belongs to the "+string(kind)+" namespace, which is the host's", "add {\"type\": \""+string(kind)+"\"} to /linux/namespaces")
	case !v.separate(kind):
		v.bad(field, "belongs to the "+string(kind)+" namespace, whose path is husk's own", "remove the path or the setting")
	}
}

// sysctlNamespace returns the namespace that a setting belongs to, "" for none.
func sysctlNamespace(path string) specs.LinuxNamespaceType {
	top, rest, _ := strings.Cut(path, "/")
	switch {
	case top == "net":
		return specs.NetworkNamespace
	case top == "user":
		return specs.UserNamespace
	case strings.HasPrefix(path, "fs/mqueue/"):
		return specs.IPCNamespace
	case top != "kernel":
		return ""
	}
	switch rest {
	case "domainname":
		return specs.UTSNamespace
	case "msgmax", "msgmnb", "msgmni", "msg_next_id", "sem", "sem_next_id",
		"shmall", "shmmax", "shmmni", "shm_next_id", "shm_rmid_forced":
		return specs.IPCNamespace
	}
	return ""
}

func (v *validator) devices() {
	const field = "/linux/devices"
	for i := range v.linux.Devices {
		d := &v.linux.Devices[i]
		v.absolute(item(field, i, "path"), d.Path)
		oneOf(v, item(field, i, "type"), d.Type, "a device type", "c", "b", "u", "p")
		if d.Type != "p" {
			v.deviceNumber(item(field, i), d.Major, d.Minor)
		}
		if d.FileMode != nil && uint32(*d.FileMode)&^(unix.S_IFMT|0o7777) != 0 {
			v.bad(item(field, i, "fileMode"), fmt.Sprintf("is %d", uint32(*d.FileMode)), "write the decimal of an octal mode, as in 438 for 0666")
		}
		if d.UID != nil {
			v.id(item(field, i, "uid"), *d.UID, "/linux/uidMappings", v.linux.UIDMappings)
		}
		if d.GID != nil {
			v.id(item(field, i, "gid"), *d.GID, "/linux/gidMappings", v.linux.GIDMappings)
		}
	}
}

// deviceNumber: the kernel's dev_t has 12 bits for the major and 20 for the minor.
func (v *validator) deviceNumber(field string, major, minor int64) {
	if major < 0 || major > 1<<12-1 {
		v.bad(field+"/major", fmt.Sprintf("is %d", major), "write a number from 0 to 4095")
	}
	if minor < 0 || minor > 1<<20-1 {
		v.bad(field+"/minor", fmt.Sprintf("is %d", minor), "write a number from 0 to 1048575")
	}
}

// paths checks what changes the container's view of files. In a user namespace that
// needs a mount namespace that is its own, for whoever is in there has no right to go
// back to one of others.
func (v *validator) paths() {
	l := v.linux
	v.absoluteList("/linux/maskedPaths", l.MaskedPaths)
	v.absoluteList("/linux/readonlyPaths", l.ReadonlyPaths)
	if l.RootfsPropagation != "" {
		oneOf(v, "/linux/rootfsPropagation", l.RootfsPropagation, "a propagation mode", propagations...)
	}
	if v.isNew(specs.MountNamespace) {
		return
	}
	v.visited()
	if !v.has(specs.UserNamespace) {
		return
	}
	for _, row := range []struct {
		field string
		given bool
	}{
		{"/root/readonly", v.Root != nil && v.Root.Readonly},
		{"/mounts", len(v.Mounts) > 0},
		{"/linux/devices", len(l.Devices) > 0},
		{"/linux/maskedPaths", len(l.MaskedPaths) > 0},
		{"/linux/readonlyPaths", len(l.ReadonlyPaths) > 0},
		{"/linux/rootfsPropagation", l.RootfsPropagation != ""},
	} {
		if row.given {
			v.bad(row.field, "needs a mount namespace of its own", "add {\"type\": \"mount\"} to /linux/namespaces")
		}
	}
}

// visited refuses what cannot be taken along into a mount namespace of others.
func (v *validator) visited() {
	const text, instead = "cannot be shared with another mount namespace", "add {\"type\": \"mount\"} to /linux/namespaces"
	if strings.HasSuffix(v.linux.RootfsPropagation, "unbindable") {
		v.bad("/linux/rootfsPropagation", "unbindable "+text, instead)
	}
	for i, m := range v.Mounts {
		for j, o := range m.Options {
			if o == "unbindable" || o == "runbindable" {
				v.bad(item("/mounts", i, "options", strconv.Itoa(j)), quote(o)+" "+text, instead)
			}
		}
	}
}

var propagations = []string{"shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable"}

func (v *validator) absoluteList(field string, paths []string) {
	for i, p := range paths {
		if p == "" || p[0] != '/' {
			v.absolute(item(field, i), p)
		}
	}
}

// resources checks the names that become names of files in the cgroup, and the device
// rules, where a slip would open more than was meant.
func (v *validator) resources() {
	if slices.Contains(strings.Split(v.linux.CgroupsPath, "/"), "..") {
		v.bad("/linux/cgroupsPath", quote(v.linux.CgroupsPath)+" has ..", "write the path without it")
	}
	r := v.linux.Resources
	if r == nil {
		return
	}
	for i := range r.Devices {
		v.deviceRule(item("/linux/resources/devices", i), &r.Devices[i])
	}
	for i, h := range r.HugepageLimits {
		if !isPageSize(h.Pagesize) {
			v.bad(item("/linux/resources/hugepageLimits", i, "pageSize"), quote(h.Pagesize)+" is not a page size", "write it as in \"64KB\", \"2MB\" or \"1GB\"")
		}
		for j := range i {
			if r.HugepageLimits[j].Pagesize == h.Pagesize {
				v.bad(item("/linux/resources/hugepageLimits", i, "pageSize"), quote(h.Pagesize)+" is already given by "+item("/linux/resources/hugepageLimits", j), "keep one of them")
				break
			}
		}
	}
	for _, key := range sorted(r.Unified) {
		if strings.ContainsAny(key, "/\n ") || strings.IndexByte(key, '.') <= 0 {
			v.bad(pointer("/linux/resources/unified", key), "is not the name of a cgroup file", "write CONTROLLER.FILE, as in \"memory.high\"")
		}
	}
}

func (v *validator) deviceRule(field string, r *specs.LinuxDeviceCgroup) {
	if r.Type != "" {
		oneOf(v, field+"/type", r.Type, "a type of device rule", "a", "b", "c")
	}
	if strings.Trim(r.Access, "rwm") != "" {
		v.bad(field+"/access", quote(r.Access)+" is not an access", "write some of r, w and m")
	}
	for _, n := range []struct {
		leaf   string
		number *int64
	}{{"/major", r.Major}, {"/minor", r.Minor}} {
		if n.number != nil && (*n.number < -1 || *n.number > math.MaxUint32) {
			v.bad(field+n.leaf, fmt.Sprintf("is %d", *n.number), "write a device number, or -1 for all")
		}
	}
}

// isPageSize is strict because the size becomes part of a file's name.
func isPageSize(s string) bool {
	for _, unit := range []string{"KB", "MB", "GB"} {
		if digits, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseUint(digits, 10, 32)
			return err == nil && strconv.FormatUint(n, 10) == digits && n != 0
		}
	}
	return false
}

func (v *validator) timeOffsets() {
	const field = "/linux/timeOffsets"
	if len(v.linux.TimeOffsets) == 0 {
		return
	}
	switch n := v.namespace(specs.TimeNamespace); {
	case n == nil:
		v.bad(field, "needs a time namespace", "add {\"type\": \"time\"} to /linux/namespaces")
	case n.Path != "":
		v.bad(field, "cannot change the existing time namespace "+quote(n.Path), "remove it")
	}
	for _, clock := range sorted(v.linux.TimeOffsets) {
		if clock != "monotonic" && clock != "boottime" {
			v.bad(pointer(field, clock), "is not a clock with an offset", "use one of monotonic, boottime")
		}
		if ns := v.linux.TimeOffsets[clock].Nanosecs; ns >= 1e9 {
			v.bad(pointer(field, clock, "nanosecs"), fmt.Sprintf("is %d", ns), "write a number up to 999999999")
		}
	}
}

// netDevices checks the names that devices get in the container's network namespace.
func (v *validator) netDevices() {
	if len(v.linux.NetDevices) > 0 && !v.separate(specs.NetworkNamespace) {
		v.bad(netDevicesField, "needs a network namespace of its own", "add {\"type\": \"network\"} to /linux/namespaces")
	}
	names := map[string]string{}
	for _, host := range sorted(v.linux.NetDevices) {
		at, name := pointer(netDevicesField, host), v.linux.NetDevices[host].Name
		if !namespaces.IsDeviceName(host) || strings.Contains(host, "%") {
			v.bad(at, "is not the name of a network device", "write up to 15 characters without / and spaces")
		}
		switch {
		case name == "":
			name = host
		case !namespaces.IsDeviceName(name):
			v.bad(at+"/name", quote(name)+" is not the name of a network device", "write up to 15 characters without / and spaces")
		case strings.Contains(name, "%") && !namespaces.IsTemplate(name):
			v.bad(at+"/name", quote(name)+" has a % that is not a template's", "write %d, once, where the kernel shall put a number")
		}
		if other, taken := names[name]; taken && !namespaces.IsTemplate(name) {
			v.bad(at+"/name", quote(name)+" is already given by "+other, "give each device its own name, or one with %d")
		}
		names[name] = at
	}
}
