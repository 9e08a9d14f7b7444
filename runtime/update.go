package runtime

import (
	"bytes"
	"errors"

	"github.com/huskrun/husk/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const resourcesPointer = "/linux/resources"

// ParseResources reads a linux.resources object, as [Runtime.Update] takes it. It reports
// mistakes as [LoadSpec] does, with the pointers that they have in a config.json.
func ParseResources(data []byte) (*specs.LinuxResources, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, &Problems{[]Problem{{resourcesPointer, "is empty", "write an object, {} to change nothing"}}}
	}
	res, d := new(specs.LinuxResources), newDecoder(data)
	misplaced := func(d *decoder) {
		d.skip()
		d.report("is around what is wanted", "give the value of /linux/resources alone")
	}
	d.object(append(resourceFields(res), field{"linux", misplaced}, field{"resources", misplaced}))
	err := d.finish()
	if p, ok := errors.AsType[*Problems](err); ok {
		for i := range p.List {
			p.List[i].Field = resourcesPointer + p.List[i].Field
		}
	}
	if err != nil {
		return nil, err
	}
	return res, nil
}

// Update changes limits of a created, running or paused container: those that resources
// sets. What it does not mention, and zero where that means unset, stays as it is; device
// rules are one list, which is replaced as a whole. Of rdt, if it is not nil, the schemas
// for cache and bandwidth are written to the container's class of service. Either all is
// changed or, after an error, nothing.
func (r *Runtime) Update(id string, resources *specs.LinuxResources, rdt *specs.LinuxIntelRdt) error {
	return wrap("update", id, r.update(id, resources, rdt))
}

func (r *Runtime) update(id string, resources *specs.LinuxResources, rdt *specs.LinuxIntelRdt) error {
	v := &validator{linux: &specs.Linux{Resources: resources}}
	v.resources()
	if rdt != nil {
		v.rdt(rdt)
	}
	if err := v.problems.orNil(); err != nil {
		return err
	}
	devices, err := r.devices(id, resources.Devices)
	if err != nil {
		return fieldError(err)
	}
	h, err := r.hold(id, true)
	if err != nil {
		return err
	}
	defer h.close()
	if err := h.living(); err != nil {
		return err
	}
	limits, controllers, warnings, err := h.group.Compile(resources)
	if err != nil {
		return fieldError(err)
	}
	for _, w := range warnings {
		r.warn(w)
	}
	return h.rec.changeClass(rdt, func() error { return h.change(limits, controllers, devices) })
}

// devices compiles device rules and tries whether the kernel takes them; nil if there is
// nothing to be done. Engines send them along with whatever they want to change, also as
// ordinary users, who cannot change them.
func (r *Runtime) devices(id string, rules []specs.LinuxDeviceCgroup) (*cgroups.Program, error) {
	program, err := cgroups.CompileDevices(rules)
	if err != nil || len(rules) == 0 {
		return nil, err
	}
	err = program.Check()
	if errors.Is(err, unix.EPERM) && unprivileged() {
		r.warn("update " + id + ": /linux/resources/devices: stays as it is: only root can change device rules")
		return nil, nil
	}
	return &program, err
}

// change puts limits in force, and device rules if there are any.
func (h *held) change(limits []cgroups.Limit, controllers []string, devices *cgroups.Program) error {
	if err := h.group.Require(controllers); err != nil {
		if e, ok := errors.AsType[*cgroups.ControllerError](err); ok {
			return at(e.Field(limits), "", err)
		}
		return at(resourcesPointer, h.rec.Cgroup, err)
	}
	unit, err := h.rec.unitUpdate(h.group, limits)
	if err != nil {
		return at(resourcesPointer, h.rec.Cgroup, err)
	}
	// What is likelier to fail comes first: only the files can be set back.
	return fieldError(h.group.Update(limits, func() error {
		if len(unit) == 0 {
			return nil
		}
		return at(resourcesPointer, "", h.group.Keep(func() error { return h.rec.setUnit(unit) }))
	}, func() error {
		if devices == nil {
			return nil
		}
		return h.group.AttachDevices(*devices)
	}))
}
