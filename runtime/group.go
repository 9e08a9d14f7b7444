package runtime

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/huskrun/husk/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CgroupManager says who makes the cgroups of containers.
type CgroupManager string

const (
	// Cgroupfs makes them as directories. It is the default, "".
	Cgroupfs CgroupManager = "cgroupfs"
	// Systemd has the service manager make them, as scopes: the system's manager for
	// root, the user's for others. Then cgroupsPath is "slice:prefix:name".
	Systemd CgroupManager = "systemd"
	// Disabled makes none: containers stay in the cgroup of their caller, without limits
	// and without a device program. It is for hosts where cgroups cannot be written.
	Disabled CgroupManager = "disabled"
)

// missing lists the directories that will be made for the cgroup. Of those that systemd
// makes only the unit's own is ours; slices stay.
func (c *creation) missing() []string {
	if c.plan.Cgroup == "" {
		return nil
	}
	list := cgroups.Missing(c.plan.Cgroup)
	if c.plan.Unit != nil {
		list = list[max(len(list)-1, 0):]
	}
	return list
}

// makeGroup makes the container's cgroup. An ordinary user who may not, and who asks for
// no limit, gets a container that stays in the cgroup of its caller. One that systemd
// makes comes with the init.
func (c *creation) makeGroup() (err error) {
	switch {
	case c.plan.Unit != nil:
		c.plan.Spawn.Place = c.placeUnit
		return nil
	case c.plan.Cgroup == "":
		return nil
	}
	c.group, err = cgroups.Create(c.plan.Cgroup, c.plan.Groups)
	if err == nil {
		return c.take()
	}
	c.rec.Cgroup, c.rec.CgroupMade = "", nil // whatever is there is not ours
	if c.mayGoWithout(err) {
		return nil
	}
	return c.groupError(err)
}

// ofHusk ends the mark of a cgroup that a create made, and a delete has to remove.
const ofHusk = " made"

// take makes the group the container's. One that was left by another, whose delete will
// find it taken, is ours to remove, and on record as that before it is marked.
func (c *creation) take() error {
	made := slices.Contains(c.rec.CgroupMade, c.rec.Cgroup)
	if !made && strings.HasSuffix(c.group.Marked(), ofHusk) {
		made = true
		c.rec.CgroupMade = append(c.rec.CgroupMade, c.rec.Cgroup)
		if err := c.entry.write(c.rec); err != nil {
			return err
		}
	}
	c.rec.owned = true
	mark := c.rec.mark()
	if made {
		mark += ofHusk
	}
	c.group.Mark(mark)
	return nil
}

// mark is how a cgroup says that it is this container's.
func (rec *record) mark() string { return rec.ID + " " + rec.Created.Format(time.RFC3339Nano) }

// lost says whether g is another container's by now, which got the same path when this
// one had ended.
func (rec *record) lost(g *cgroups.Group) bool {
	mark := strings.TrimSuffix(g.Marked(), ofHusk)
	return mark != "" && mark != rec.mark()
}

// findGroup opens the container's cgroup; nil if it has none, or none any more.
func (rec *record) findGroup() (*cgroups.Group, error) {
	if rec.Cgroup == "" {
		return nil, nil
	}
	g, err := cgroups.Open(rec.Cgroup)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err == nil && rec.lost(g) {
		g.Close()
		return nil, nil
	}
	return g, err
}

// groupError finds the field to blame for a cgroup that could not be made.
func (c *creation) groupError(err error) error {
	if e, ok := errors.AsType[*cgroups.ControllerError](err); ok {
		return at(e.Field(c.plan.Limits), "", err)
	}
	return at("/linux/cgroupsPath", c.plan.Cgroup, err)
}

// mayGoWithout: device rules do not count, which have no effect for such a user even with
// a cgroup (attachDevices). Podman always has some.
func (c *creation) mayGoWithout(err error) bool {
	refused := errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)
	asked := len(c.plan.Limits) > 0 || c.config.Spec.Linux.CgroupsPath != ""
	return refused && !asked && unprivileged()
}

// unprivileged says whether we are no root, or root of a user namespace only.
func unprivileged() bool {
	if os.Geteuid() != 0 {
		return true
	}
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"})
}

// limit applies the limits that cannot hurt a child that boots.
func (c *creation) limit() error {
	if c.group == nil {
		return nil
	}
	if err := c.group.Apply(c.plan.Limits, false); err != nil {
		return fieldError(err)
	}
	return fieldError(attachDevices(c.group, c.plan.Devices))
}

// attachDevices attaches a device program to a container's cgroup.
func attachDevices(g *cgroups.Group, p cgroups.Program) error {
	err := g.AttachDevices(p)
	if errors.Is(err, unix.EPERM) && unprivileged() {
		// Only real root may load the program, and only real root could make device
		// nodes for which it would matter.
		return nil
	}
	return err
}

// delegate gives the cgroup to the container's user if the container may manage it: in
// a cgroup namespace of its own with the hierarchy mounted writable (runtime-spec,
// config-linux.md, "Cgroup ownership").
func (c *creation) delegate(proc *specs.Process) error {
	if c.group == nil || !c.plan.isNew(unix.CLONE_NEWCGROUP) {
		return nil
	}
	k := slices.IndexFunc(c.config.Spec.Mounts, func(m specs.Mount) bool {
		return (m.Type == "cgroup" || m.Type == "cgroup2") && m.Destination == "/sys/fs/cgroup" && !slices.Contains(m.Options, "ro")
	})
	uid, mapped := hostID(proc.User.UID, c.plan.Spawn.UIDMaps)
	if k < 0 || !mapped || uid == os.Geteuid() {
		return nil
	}
	return at(pointer("/mounts", strconv.Itoa(k)), "/sys/fs/cgroup", c.group.Delegate(uid))
}

// hostID maps an id of the container to the host's. Without maps they are the same.
func hostID(id uint32, maps []specs.LinuxIDMapping) (int, bool) {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return int(m.HostID + id - m.ContainerID), true
		}
	}
	return int(id), len(maps) == 0
}

// enough is a limit on memory above which the init is not in the way of the process.
const enough = 4 << 20

// tight says whether the init must not live at the container's expense: under a small
// limit it works in our own cgroup and enters the container's when it is READY, since
// what was charged to a group stays there. Not with systemd, which takes an empty scope
// for one that has ended.
func (c *creation) tight() bool {
	return c.group != nil && c.plan.Unit == nil && slices.ContainsFunc(c.plan.Limits, func(l cgroups.Limit) bool {
		n, err := strconv.ParseUint(l.Value, 10, 64)
		return l.File == "memory.max" && err == nil && n < enough
	})
}

// limitLate applies those that might: the child is parked now and needs no more.
func (c *creation) limitLate() error {
	if c.group == nil {
		return nil
	}
	if c.apart {
		if err := c.group.Add(c.proc.PID); err != nil {
			return at("/linux/cgroupsPath", c.plan.Cgroup, err)
		}
	}
	if late := c.properties(true); c.manager != nil && len(late) > 0 {
		if err := c.manager.Set(*c.plan.Unit, late); err != nil {
			return at("/linux/resources", "", err)
		}
	}
	return fieldError(c.group.Apply(c.plan.Limits, true))
}
