package runtime

import (
	"os"
	"strconv"
	"strings"

	"github.com/huskrun/husk/namespaces"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// enoughIDs are as many as images use: more would only be a larger target.
const enoughIDs = 65536

// SubordinateMaps are mappings in which an ordinary user is uid:gid, and the others are ids
// that /etc/subuid and /etc/subgid grant the user. They are nil where none are granted, or
// there is no newuidmap(1) to have them written.
func SubordinateMaps(uid, gid uint32) (uids, gids []specs.LinuxIDMapping) {
	if !namespaces.MapsRanges() {
		return nil, nil
	}
	user := strconv.Itoa(os.Geteuid())
	names := []string{user, owner(os.Geteuid())}
	uids = around(uid, os.Geteuid(), granted("/etc/subuid", names))
	gids = around(gid, os.Getegid(), granted("/etc/subgid", names))
	if uids == nil || gids == nil {
		return nil, nil
	}
	return uids, gids
}

// granted is the largest range in a file of lines USER:FIRST:COUNT, as in subuid(5).
func granted(file string, names []string) (r specs.LinuxIDMapping) {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 || f[0] != names[0] && f[0] != names[1] {
			continue
		}
		first, err := strconv.ParseUint(f[1], 10, 32)
		count, err2 := strconv.ParseUint(f[2], 10, 32)
		if err == nil && err2 == nil && first > 0 && first+count <= noID && uint32(count) > r.Size {
			r.HostID, r.Size = uint32(first), uint32(count)
		}
	}
	return r
}

// around maps id to the one outside, and those below and above it to a range.
func around(id uint32, outside int, r specs.LinuxIDMapping) (list []specs.LinuxIDMapping) {
	if r.Size == 0 {
		return nil
	}
	size := min(r.Size, enoughIDs-1)
	below := min(id, size)
	for _, m := range []specs.LinuxIDMapping{
		{ContainerID: 0, HostID: r.HostID, Size: below},
		{ContainerID: id, HostID: uint32(outside), Size: 1},
		{ContainerID: id + 1, HostID: r.HostID + below, Size: size - below},
	} {
		if m.Size > 0 {
			list = append(list, m)
		}
	}
	return list
}
