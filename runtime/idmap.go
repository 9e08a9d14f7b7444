package runtime

import (
	"os"
	"slices"
	"strconv"

	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/rootfs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// idMapper finds the user namespaces that id-mapped mounts take their mapping from.
// Mounts with the same mapping share one.
type idMapper struct {
	init int           // pid of the container's init
	user *rootfs.IDMap // of its user namespace, nil if it has none of its own
	have []mappedUser
}

type mappedUser struct {
	*rootfs.IDMap
	user *os.File
}

func (c *creation) idMapper() *idMapper {
	d := &idMapper{init: c.proc.PID}
	if linux := c.config.Spec.Linux; c.plan.owned(specs.UserNamespace) {
		d.user = &rootfs.IDMap{UIDs: linux.UIDMappings, GIDs: linux.GIDMappings}
	}
	return d
}

// find returns a descriptor of the user namespace for m, -1 if there is no m.
func (d *idMapper) find(m *rootfs.IDMap) (int, error) {
	if m == nil {
		return -1, nil
	}
	for _, h := range d.have {
		if sameIDs(h.IDMap, m) {
			return int(h.user.Fd()), nil
		}
	}
	user, err := d.open(m)
	if err != nil {
		return -1, err
	}
	d.have = append(d.have, mappedUser{m, user})
	return int(user.Fd()), nil
}

// foresee finds those of the steps to come while the init is busy. What fails will fail
// again where it can be reported.
func (d *idMapper) foresee(steps []Step) {
	for i := range steps {
		if s := &steps[i]; s.Op == opRootfs && s.Mount.FD {
			_, _ = d.find(s.Mount.IDMap)
		}
	}
}

func (d *idMapper) open(m *rootfs.IDMap) (*os.File, error) {
	// Engines repeat the container's mappings at each mount. One more user namespace
	// with the same would do, but costs as much as a process.
	if len(m.UIDs)+len(m.GIDs) > 0 && (d.user == nil || !sameIDs(m, d.user)) {
		return namespaces.NewUser(m.UIDs, m.GIDs)
	}
	return namespaces.Open("/proc/"+strconv.Itoa(d.init)+"/ns/user", unix.CLONE_NEWUSER)
}

func sameIDs(a, b *rootfs.IDMap) bool {
	return slices.Equal(a.UIDs, b.UIDs) && slices.Equal(a.GIDs, b.GIDs)
}

func (d *idMapper) close() {
	for _, h := range d.have {
		_ = h.user.Close()
	}
}
