package runtime

import (
	"slices"
	"strings"
	"time"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/cgroups/systemd"
	"golang.org/x/sys/unix"
)

// How long systemd may keep a command waiting, in all, and where it is not needed.
const (
	busPatience  = 20 * time.Second
	stopPatience = 4 * time.Second
)

// unitProperty begins the annotations that set a property of the systemd unit.
const unitProperty = "org.systemd.property."

// connect asks systemd, before anything is changed, where the cgroup of unit u will be.
func (c *creation) connect(u systemd.Unit) (cgroup string, err error) {
	if c.extra, err = c.unitProperties(); err != nil {
		return "", err
	}
	if c.manager, err = u.Connect(busPatience); err != nil {
		return "", err
	}
	if cgroup, err = c.manager.Path(u); err != nil || u.IsSlice() {
		return cgroup, err
	}
	// That of a scope has to be new. Nothing is started, nor stopped, before that is seen.
	if g, err := cgroups.Open(cgroup); err == nil {
		defer g.Close()
		if g.Populated() {
			pids, _ := g.Procs()
			return "", &cgroups.BusyError{Group: cgroup, PIDs: pids, Err: unix.EBUSY}
		}
	}
	return cgroup, nil
}

// unitProperties reads those annotations that the operator allows. Annotations may come
// with an image, and some properties (SuccessAction=reboot) reach far beyond a container.
func (c *creation) unitProperties() (list []systemd.Property, err error) {
	for _, key := range sorted(c.config.Spec.Annotations) {
		name, ok := strings.CutPrefix(key, unitProperty)
		if !ok {
			continue
		}
		field := pointer("/annotations", key)
		if !slices.Contains(c.UnitProperties, name) {
			c.warn(field + ": ignored; --allow-systemd-property " + name + " permits it")
			continue
		}
		p, err := systemd.ParseProperty(name, c.config.Spec.Annotations[key])
		if err != nil {
			return nil, at(field, "", err)
		}
		list = append(list, p)
	}
	return list, nil
}

// placeUnit has systemd start the unit with the init in it. A scope cannot be without a
// process, so the init is not born in its cgroup.
func (c *creation) placeUnit(pid int) error {
	if err := c.recordInit(pid); err != nil {
		return err
	}
	path, err := c.manager.Start(*c.plan.Unit, pid, slices.Concat(c.properties(false), systemd.Fixed(c.plan.Limits), c.extra))
	if err != nil {
		c.rec.Cgroup, c.rec.CgroupMade, c.rec.Unit = "", nil, "" // whatever is there is not ours
		return at("/linux/cgroupsPath", c.plan.Cgroup, err)
	}
	if path != c.rec.Cgroup {
		c.rec.Cgroup, c.rec.CgroupMade = path, []string{path}
	}
	c.rec.owned = true
	if c.group, err = cgroups.Open(path); err != nil {
		return at("/linux/cgroupsPath", path, err)
	}
	if err := c.take(); err != nil {
		return err
	}
	if c.plan.Unit.IsSlice() { // which takes no processes by way of systemd
		if err := c.group.Add(pid); err != nil {
			return err
		}
	}
	return c.groupError(c.group.Require(c.plan.Groups))
}

// properties are those of the unit for the early or for the late limits.
func (c *creation) properties(late bool) []systemd.Property {
	return systemd.Properties(slices.DeleteFunc(slices.Clone(c.plan.Limits), func(l cgroups.Limit) bool { return l.Late != late }))
}

// stopUnit makes systemd forget the unit of a container whose cgroup is gone. It does so
// by itself when it looks, so that a systemd that does not answer is no reason to fail. A
// slice that was there before stays, and with it whatever else is in it.
func (r *Runtime) stopUnit(rec *record) {
	if rec.Unit == "" || !slices.Contains(rec.CgroupMade, rec.Cgroup) {
		return
	}
	m, err := rec.unit().Connect(stopPatience)
	if err == nil {
		defer m.Close()
		err = m.Stop(rec.unit())
	}
	if err != nil {
		r.warn(err.Error())
	}
}

// unitUpdate says what systemd must be told of limits that group g is about to get, which
// it would otherwise take back when it is reloaded. Of a container without a unit, nothing.
func (rec *record) unitUpdate(g *cgroups.Group, limits []cgroups.Limit) ([]systemd.Property, error) {
	if rec.Unit == "" {
		return nil, nil
	}
	current, err := g.Limits()
	return systemd.Properties(systemd.Complete(limits, current)), err
}

func (rec *record) setUnit(properties []systemd.Property) error {
	if len(properties) == 0 {
		return nil
	}
	m, err := rec.unit().Connect(busPatience)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Set(rec.unit(), properties)
}

func (rec *record) unit() systemd.Unit { return systemd.Unit{Name: rec.Unit, User: rec.UserUnit} }
