package runtime

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The members of every object in config.json that means something on Linux. A test
// holds these tables against the struct tags of specs-go.

func specFields(s *specs.Spec, c *Config) []field {
	return []field{
		{"ociVersion", &s.Version},
		{"process", func(d *decoder) {
			c.process = d.source(func() { object(&s.Process, processFields)(d) })
		}},
		{"root", object(&s.Root, rootFields)},
		{"hostname", &s.Hostname},
		{"domainname", &s.Domainname},
		{"mounts", list(&s.Mounts, mountFields)},
		{"hooks", object(&s.Hooks, hooksFields)},
		{"annotations", &s.Annotations},
		{"linux", object(&s.Linux, func(l *specs.Linux) []field { return linuxFields(l, c) })},
	}
}

func processFields(p *specs.Process) []field {
	return []field{
		{"terminal", &p.Terminal},
		{"consoleSize", object(&p.ConsoleSize, boxFields)},
		{"user", userFields(&p.User)},
		{"args", &p.Args},
		{"env", &p.Env},
		{"cwd", &p.Cwd},
		{"capabilities", object(&p.Capabilities, capabilityFields)},
		{"rlimits", list(&p.Rlimits, rlimitFields)},
		{"noNewPrivileges", &p.NoNewPrivileges},
		{"apparmorProfile", &p.ApparmorProfile},
		{"oomScoreAdj", &p.OOMScoreAdj},
		{"scheduler", object(&p.Scheduler, schedulerFields)},
		{"selinuxLabel", &p.SelinuxLabel},
		{"ioPriority", object(&p.IOPriority, ioPriorityFields)},
		{"execCPUAffinity", object(&p.ExecCPUAffinity, affinityFields)},
	}
}

func boxFields(b *specs.Box) []field {
	return []field{{"height", required(&b.Height)}, {"width", required(&b.Width)}}
}

func userFields(u *specs.User) []field {
	return []field{
		{"uid", &u.UID},
		{"gid", &u.GID},
		{"umask", &u.Umask},
		{"additionalGids", gids(&u.AdditionalGids)},
	}
}

func gids(p *[]uint32) func(*decoder) {
	return func(d *decoder) {
		*p = []uint32{}
		d.array("an array of group ids", func() { *p = append(*p, uint32(d.unsigned(32))) })
	}
}

func capabilityFields(c *specs.LinuxCapabilities) []field {
	return []field{
		{"bounding", &c.Bounding},
		{"effective", &c.Effective},
		{"inheritable", &c.Inheritable},
		{"permitted", &c.Permitted},
		{"ambient", &c.Ambient},
	}
}

func rlimitFields(r *specs.POSIXRlimit) []field {
	return []field{{"type", &r.Type}, {"hard", required(&r.Hard)}, {"soft", required(&r.Soft)}}
}

func schedulerFields(s *specs.Scheduler) []field {
	return []field{
		{"policy", (*string)(&s.Policy)},
		{"nice", &s.Nice},
		{"priority", &s.Priority},
		{"flags", names(&s.Flags)},
		{"runtime", &s.Runtime},
		{"deadline", &s.Deadline},
		{"period", &s.Period},
	}
}

func ioPriorityFields(p *specs.LinuxIOPriority) []field {
	return []field{{"class", (*string)(&p.Class)}, {"priority", &p.Priority}}
}

func affinityFields(a *specs.CPUAffinity) []field {
	return []field{{"initial", &a.Initial}, {"final", &a.Final}}
}

func rootFields(r *specs.Root) []field {
	return []field{{"path", &r.Path}, {"readonly", &r.Readonly}}
}

func mountFields(m *specs.Mount) []field {
	return []field{
		{"destination", &m.Destination},
		{"type", &m.Type},
		{"source", &m.Source},
		{"options", &m.Options},
		{"uidMappings", list(&m.UIDMappings, mappingFields)},
		{"gidMappings", list(&m.GIDMappings, mappingFields)},
	}
}

func mappingFields(m *specs.LinuxIDMapping) []field {
	return []field{{"containerID", required(&m.ContainerID)}, {"hostID", required(&m.HostID)}, {"size", &m.Size}}
}

func hooksFields(h *specs.Hooks) []field {
	return []field{
		{"prestart", list(&h.Prestart, hookFields)},
		{"createRuntime", list(&h.CreateRuntime, hookFields)},
		{"createContainer", list(&h.CreateContainer, hookFields)},
		{"startContainer", list(&h.StartContainer, hookFields)},
		{"poststart", list(&h.Poststart, hookFields)},
		{"poststop", list(&h.Poststop, hookFields)},
	}
}

func hookFields(h *specs.Hook) []field {
	return []field{{"path", &h.Path}, {"args", &h.Args}, {"env", &h.Env}, {"timeout", &h.Timeout}}
}

func linuxFields(l *specs.Linux, c *Config) []field {
	return []field{
		{"uidMappings", list(&l.UIDMappings, mappingFields)},
		{"gidMappings", list(&l.GIDMappings, mappingFields)},
		{"sysctl", &l.Sysctl},
		{"resources", object(&l.Resources, resourceFields)},
		{"cgroupsPath", &l.CgroupsPath},
		{"namespaces", list(&l.Namespaces, namespaceFields)},
		{"devices", list(&l.Devices, deviceFields)},
		{"netDevices", dict(&l.NetDevices, netDeviceFields)},
		{"seccomp", c.decodeSeccomp},
		{"rootfsPropagation", &l.RootfsPropagation},
		{"maskedPaths", &l.MaskedPaths},
		{"readonlyPaths", &l.ReadonlyPaths},
		{"mountLabel", &l.MountLabel},
		{"intelRdt", object(&l.IntelRdt, rdtFields)},
		{"memoryPolicy", object(&l.MemoryPolicy, memoryPolicyFields)},
		{"personality", object(&l.Personality, personalityFields)},
		{"timeOffsets", dict(&l.TimeOffsets, timeOffsetFields)},
	}
}

// decodeSeccomp keeps the profile's bytes: only who compiles the filter reads them.
func (c *Config) decodeSeccomp(d *decoder) {
	if d.in.PeekKind() != '{' {
		d.mismatch("an object")
		return
	}
	c.Seccomp = d.undecoded().Clone()
}

func namespaceFields(n *specs.LinuxNamespace) []field {
	return []field{{"type", (*string)(&n.Type)}, {"path", &n.Path}}
}

func deviceFields(v *specs.LinuxDevice) []field {
	return []field{
		{"path", &v.Path},
		{"type", &v.Type},
		{"major", &v.Major},
		{"minor", &v.Minor},
		{"fileMode", &v.FileMode},
		{"uid", &v.UID},
		{"gid", &v.GID},
	}
}

func netDeviceFields(n *specs.LinuxNetDevice) []field {
	return []field{{"name", &n.Name}}
}

func rdtFields(r *specs.LinuxIntelRdt) []field {
	return []field{
		{"closID", &r.ClosID},
		{"schemata", &r.Schemata},
		{"l3CacheSchema", &r.L3CacheSchema},
		{"memBwSchema", &r.MemBwSchema},
		{"enableMonitoring", &r.EnableMonitoring},
	}
}

func memoryPolicyFields(m *specs.LinuxMemoryPolicy) []field {
	return []field{{"mode", (*string)(&m.Mode)}, {"nodes", &m.Nodes}, {"flags", names(&m.Flags)}}
}

func personalityFields(p *specs.LinuxPersonality) []field {
	return []field{{"domain", (*string)(&p.Domain)}, {"flags", names(&p.Flags)}}
}

func timeOffsetFields(t *specs.LinuxTimeOffset) []field {
	return []field{{"secs", &t.Secs}, {"nanosecs", &t.Nanosecs}}
}

func resourceFields(r *specs.LinuxResources) []field {
	return []field{
		{"devices", list(&r.Devices, deviceRuleFields)},
		{"memory", object(&r.Memory, memoryFields)},
		{"cpu", object(&r.CPU, cpuFields)},
		{"pids", object(&r.Pids, func(p *specs.LinuxPids) []field { return []field{{"limit", &p.Limit}} })},
		{"blockIO", object(&r.BlockIO, blockIOFields)},
		{"hugepageLimits", list(&r.HugepageLimits, hugepageFields)},
		{"network", object(&r.Network, networkFields)},
		{"rdma", dict(&r.Rdma, rdmaFields)},
		{"unified", &r.Unified},
	}
}

func deviceRuleFields(r *specs.LinuxDeviceCgroup) []field {
	return []field{
		{"allow", required(&r.Allow)},
		{"type", &r.Type},
		{"major", &r.Major},
		{"minor", &r.Minor},
		{"access", &r.Access},
	}
}

func memoryFields(m *specs.LinuxMemory) []field {
	return []field{
		{"limit", &m.Limit},
		{"reservation", &m.Reservation},
		{"swap", &m.Swap},
		{"kernel", &m.Kernel},
		{"kernelTCP", &m.KernelTCP},
		{"swappiness", &m.Swappiness},
		{"disableOOMKiller", &m.DisableOOMKiller},
		{"useHierarchy", &m.UseHierarchy},
		{"checkBeforeUpdate", &m.CheckBeforeUpdate},
	}
}

func cpuFields(c *specs.LinuxCPU) []field {
	return []field{
		{"shares", &c.Shares},
		{"quota", &c.Quota},
		{"burst", &c.Burst},
		{"period", &c.Period},
		{"realtimeRuntime", &c.RealtimeRuntime},
		{"realtimePeriod", &c.RealtimePeriod},
		{"cpus", &c.Cpus},
		{"mems", &c.Mems},
		{"idle", &c.Idle},
	}
}

func blockIOFields(b *specs.LinuxBlockIO) []field {
	return []field{
		{"weight", &b.Weight},
		{"leafWeight", &b.LeafWeight},
		{"weightDevice", list(&b.WeightDevice, weightFields)},
		{"throttleReadBpsDevice", list(&b.ThrottleReadBpsDevice, throttleFields)},
		{"throttleWriteBpsDevice", list(&b.ThrottleWriteBpsDevice, throttleFields)},
		{"throttleReadIOPSDevice", list(&b.ThrottleReadIOPSDevice, throttleFields)},
		{"throttleWriteIOPSDevice", list(&b.ThrottleWriteIOPSDevice, throttleFields)},
	}
}

func weightFields(w *specs.LinuxWeightDevice) []field {
	return []field{
		{"major", required(&w.Major)},
		{"minor", required(&w.Minor)},
		{"weight", &w.Weight},
		{"leafWeight", &w.LeafWeight},
	}
}

func throttleFields(t *specs.LinuxThrottleDevice) []field {
	return []field{{"major", required(&t.Major)}, {"minor", required(&t.Minor)}, {"rate", &t.Rate}}
}

func hugepageFields(h *specs.LinuxHugepageLimit) []field {
	return []field{{"pageSize", &h.Pagesize}, {"limit", required(&h.Limit)}}
}

func networkFields(n *specs.LinuxNetwork) []field {
	return []field{{"classID", &n.ClassID}, {"priorities", list(&n.Priorities, priorityFields)}}
}

func priorityFields(p *specs.LinuxInterfacePriority) []field {
	return []field{{"name", required(&p.Name)}, {"priority", required(&p.Priority)}}
}

func rdmaFields(r *specs.LinuxRdma) []field {
	return []field{{"hcaHandles", &r.HcaHandles}, {"hcaObjects", &r.HcaObjects}}
}
