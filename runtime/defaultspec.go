package runtime

import (
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultSpec returns a configuration that runs a shell from the directory "rootfs"
// of the bundle. The rootless one works without any privilege: it maps the caller
// alone to root, stays in the caller's network and sets no limits.
func DefaultSpec(rootless bool) *specs.Spec {
	s := &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{Path: "rootfs", Readonly: true},
		Process:  defaultProcess(),
		Hostname: "husk",
		Mounts:   defaultMounts(),
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.CgroupNamespace},
			},
			Resources: &specs.LinuxResources{
				Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
			},
			MaskedPaths:   defaultMasked(),
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Seccomp:       defaultSeccomp(defaultCapabilities()),
		},
	}
	if rootless {
		toRootless(s)
	}
	return s
}

// Grant gives further capabilities to the process of a DefaultSpec, and adds to its
// profile the system calls that they are for.
func Grant(s *specs.Spec, caps ...string) error {
	if err := (&ExecOptions{Caps: caps}).changeCaps(s.Process); err != nil {
		return err
	}
	s.Linux.Seccomp = defaultSeccomp(s.Process.Capabilities.Effective)
	return nil
}

// defaultProcess has nothing in the inheritable and ambient sets: with them, a file
// with inheritable capabilities would hand root's to a user (CVE-2022-24769).
func defaultProcess() *specs.Process {
	return &specs.Process{
		Args: []string{"sh"},
		Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"TERM=xterm",
		},
		Cwd: "/",
		Capabilities: &specs.LinuxCapabilities{
			Bounding:  defaultCapabilities(),
			Effective: defaultCapabilities(),
			Permitted: defaultCapabilities(),
		},
		Rlimits:         []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}},
		NoNewPrivileges: true,
	}
}

// defaultCapabilities are what ordinary services drop from or install files with,
// none of which reaches beyond the container's own namespaces.
func defaultCapabilities() []string {
	return []string{
		"CAP_AUDIT_WRITE",
		"CAP_CHOWN",
		"CAP_DAC_OVERRIDE",
		"CAP_FOWNER",
		"CAP_FSETID",
		"CAP_KILL",
		"CAP_MKNOD",
		"CAP_NET_BIND_SERVICE",
		"CAP_NET_RAW",
		"CAP_SETFCAP",
		"CAP_SETGID",
		"CAP_SETPCAP",
		"CAP_SETUID",
		"CAP_SYS_CHROOT",
	}
}

func defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
}

// defaultMasked are files that tell about or reach the host: kernel memory and keys,
// timers and schedulers of other processes, firmware, hardware that answers to reads
// (powercap: CVE-2020-8694), interrupt counts that time the host's keyboard.
func defaultMasked() []string {
	return []string{
		"/proc/acpi",
		"/proc/asound",
		"/proc/interrupts",
		"/proc/kcore",
		"/proc/keys",
		"/proc/latency_stats",
		"/proc/sched_debug",
		"/proc/scsi",
		"/proc/timer_list",
		"/proc/timer_stats",
		"/sys/devices/virtual/powercap",
		"/sys/firmware",
	}
}

// toRootless changes what an unprivileged caller may not do. Without a network
// namespace of its own a user namespace may not mount sysfs, so the host's is bound,
// read-only down to the cgroup tree inside it (CVE-2023-25809).
func toRootless(s *specs.Spec) {
	s.Linux.Resources = nil
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Geteuid()), Size: 1}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Getegid()), Size: 1}}
	for i := range s.Linux.Namespaces {
		if n := &s.Linux.Namespaces[i]; n.Type == specs.NetworkNamespace {
			n.Type = specs.UserNamespace
		}
	}
	mounts := s.Mounts[:0]
	for _, m := range s.Mounts {
		if strings.HasPrefix(m.Destination, "/sys") {
			continue
		}
		if m.Type == "devpts" {
			m.Options = m.Options[:len(m.Options)-1] // the tty group is not mapped
		}
		mounts = append(mounts, m)
	}
	s.Mounts = append(mounts, specs.Mount{
		Destination: "/sys",
		Type:        "none",
		Source:      "/sys",
		Options:     []string{"rbind", "nosuid", "noexec", "nodev", "rro"},
	})
}
