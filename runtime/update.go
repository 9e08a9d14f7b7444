package runtime

import (
	"bytes"
	"errors"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/cgroups/systemd"
	"github.com/opencontainers/runtime-spec/specs-go"
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
// rules are one list, which is replaced as a whole. Either all is changed or, after an
// error, nothing.
func (r *Runtime) Update(id string, resources *specs.LinuxResources) error {
	return wrap("update", id, r.update(id, resources))
}

func (r *Runtime) update(id string, resources *specs.LinuxResources) error {
	v := &validator{linux: &specs.Linux{Resources: resources}}
	v.resources()
	if err := v.problems.orNil(); err != nil {
		return err
	}
	program, err := cgroups.CompileDevices(resources.Devices)
	if err == nil && len(resources.Devices) > 0 {
		err = program.Check()
	}
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
	var devices *cgroups.Program
	if len(resources.Devices) > 0 {
		devices = &program
	}
	return h.change(limits, controllers, devices)
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
		return h.setUnit(unit, limits)
	}, func() error {
		if devices == nil {
			return nil
		}
		return attachDevices(h.group, *devices)
	}))
}

// setUnit tells systemd, which at once writes to the files what it makes of it: a quota that
// is rounded up, 1 for no process at all. They get theirs once more.
func (h *held) setUnit(unit []systemd.Property, limits []cgroups.Limit) error {
	if err := h.rec.setUnit(unit); err != nil || len(unit) == 0 {
		return at(resourcesPointer, "", err)
	}
	if err := h.group.Apply(limits, false); err != nil {
		return err
	}
	return h.group.Apply(limits, true)
}
