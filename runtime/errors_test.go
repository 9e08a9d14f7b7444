package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/cgroups/resctrl"
	"github.com/huskrun/husk/rootfs"
	"github.com/huskrun/husk/seccomp"
)

func TestErrorText(t *testing.T) {
	cause := &fs.PathError{Op: "bind", Path: "/srv/data", Err: syscall.ENOENT}
	err := wrap("create", "ci-42", at("/mounts/3", "/data", cause))
	if want := "create ci-42: /mounts/3 (/data): bind /srv/data: no such file or directory"; err.Error() != want {
		t.Errorf("%q", err)
	}
	if !errors.Is(err, syscall.ENOENT) || !errors.Is(err, fs.ErrNotExist) {
		t.Error("the errno cannot be reached")
	}
	if err := wrap("state", "x", ErrNotExist); err.Error() != "state x: container does not exist" {
		t.Errorf("%q", err)
	}
	if wrap("state", "x", nil) != nil || at("/a", "", nil) != nil {
		t.Error("nil became an error")
	}
}

// TestHints has a row for every row of the table, in its order: an error as it occurs,
// and the beginning of what to do about it.
func TestHints(t *testing.T) {
	rows := []struct {
		field string
		err   error
		want  string
	}{
		{"", ErrExist, "choose another id"},
		{"", ErrNotExist, "husk list shows"},
		{"", ErrRunning, "husk exec runs"},
		{"", ErrStopped, "delete it and create it again"},
		{"/linux/cgroupsPath", &cgroups.BusyError{Group: "/g", Err: syscall.EBUSY}, "the cgroup is in use"},
		{"/linux/cgroupsPath", fmt.Errorf("connect to systemd: %w", syscall.ENOENT), "is systemd running"},
		{"/linux/cgroupsPath", syscall.EROFS, "cgroups are mounted read-only"},
		{"", ErrBusy, "another husk command"},
		{"/process/args/0", syscall.ENOEXEC, "the file is neither"},
		{"/process/args/0", interpreterError{}, "the program exists but the interpreter"},
		{"/process/args/0", &notFoundError{"x", syscall.ENOENT}, "the path is looked up inside the rootfs"},
		{"/process/args/0", syscall.EACCES, "check that the file is executable"},
		{"/mounts/3", syscall.ENOENT, "the source of a bind mount"},
		{"/mounts/3", syscall.ENODEV, "the kernel has no such filesystem"},
		{"/mounts/3", &fs.PathError{Op: "id-map", Path: "/x", Err: syscall.EINVAL}, "this kernel, or the filesystem, knows no id-mapped"},
		{"/mounts/3", &fs.PathError{Op: "id-map", Path: "/x", Err: syscall.EPERM}, "it needs CAP_SYS_ADMIN in the user namespace"},
		{"/mounts/3", &fs.PathError{Op: "chmod", Path: "/x", Err: syscall.EOVERFLOW}, "the mapping leaves out"},
		{"/mounts/3", fmt.Errorf("option \"pidns=/x\": %w", syscall.EINVAL), "to mount the procfs"},
		{"/mounts/3", fmt.Errorf("option \"context=x\": %w", syscall.EINVAL), "SELinux is off, or its policy"},
		{"/mounts/3", syscall.EINVAL, "an option is unknown"},
		{"/mounts/3", &fs.PathError{Op: "mount_setattr", Path: "/x", Err: syscall.EPERM}, "in a user namespace a mount of the host keeps"},
		{"/mounts/3", syscall.EPERM, "mounting this needs privileges"},
		{"/root/path", syscall.ENOENT, "root.path is relative"},
		{"/process/rlimits/0", syscall.EPERM, "raising a hard limit"},
		{"/process/scheduler", fmt.Errorf("sched_setattr SCHED_DEADLINE: %w", syscall.EPERM), "SCHED_DEADLINE needs"},
		{"/process/scheduler", syscall.EPERM, "real time and a lower nice value"},
		{"/process/scheduler", syscall.EBUSY, "the processors' bandwidth for deadlines"},
		{"/process/scheduler", syscall.EOPNOTSUPP, "this kernel has no utilization clamping"},
		{"/process/scheduler", syscall.EINVAL, "see sched_setattr(2)"},
		{"/process/ioPriority", syscall.EPERM, "IOPRIO_CLASS_RT needs"},
		{"/process/execCPUAffinity/final", syscall.EINVAL, "none of these CPUs"},
		{"/linux/memoryPolicy", syscall.EINVAL, "none of the nodes has memory"},
		{"/linux/personality", syscall.EINVAL, "this processor runs no 32-bit programs"},
		{"/process/apparmorProfile", syscall.ENOENT, "no such profile is loaded"},
		{"/process/apparmorProfile", syscall.EACCES, "husk runs under a profile itself"},
		{"/process/selinuxLabel", syscall.EINVAL, "the policy has no such label"},
		{"/process/selinuxLabel", syscall.EACCES, "the policy does not let husk"},
		{"/process/oomScoreAdj", syscall.EACCES, "lowering oom_score_adj"},
		{"/linux/sysctl/net.x", syscall.ENOENT, "this kernel has no such setting"},
		{"/linux/namespaces/0", syscall.EPERM, "creating or joining"},
		{"/linux/namespaces/0", syscall.ENOSPC, "a limit in /proc/sys/user"},
		{"/linux/namespaces/0", syscall.ENOENT, "the namespace file does not exist"},
		{"/linux/seccomp/listenerPath", syscall.ENOENT, "start the agent first"},
		{"/linux/seccomp/listenerPath", syscall.ECONNREFUSED, "nobody listens there"},
		{"/linux/seccomp/listenerPath", syscall.EPROTOTYPE, "the agent has to listen"},
		{"/linux/seccomp", fmt.Errorf("pidfd_getfd: %w", syscall.EPERM), "husk takes the listener"},
		{"/linux/netDevices/x", syscall.ENODEV, "ip link lists"},
		{"/linux/netDevices/x", syscall.EEXIST, "give it another name"},
		{"/annotations/x", fmt.Errorf("bridge: there is no x: %w", syscall.ENODEV), "make the bridge with"},
		{"", fmt.Errorf("bridge: lo is no bridge: %w", syscall.EINVAL), "ip link show type bridge"},
		{"", errors.New("address: auto takes one of a bridge's network"), "add bridge=husk0"},
		{"", fmt.Errorf("address: 10.0.0.1 is that of container c1: %w", syscall.EADDRINUSE), "write another address"},
		{"", fmt.Errorf("bridge husk0: its address: %w", syscall.EADDRINUSE), "take the gateway"},
		{"", fmt.Errorf("bridge husk0: all are taken: %w", syscall.EADDRNOTAVAIL), "address=auto takes"},
		{"/annotations/run.husk.net.x", fmt.Errorf("host-name: the host has a network device x already: %w", syscall.EEXIST), "leave out host-name"},
		{"", fmt.Errorf("--net lo: the container has a network device lo already: %w", syscall.EEXIST), "the kernel makes that one"},
		{"", fmt.Errorf("--net x: make network device x: %w", syscall.EEXIST), "its name, or that of host-name"},
		{"", fmt.Errorf("masquerade and publish: the host forwards no packets: %w", syscall.EHOSTUNREACH), "add the word forwarding"},
		{"", fmt.Errorf("publish: 192.0.2.9:80:80/tcp: the host has no such address: %w", syscall.EADDRNOTAVAIL), "ip addr shows the addresses of the host"},
		{"", errors.New("publish: [::1]:80:80/tcp: nothing comes back to ::1 from a container"), "write 127.0.0.1"},
		{"", fmt.Errorf("publish: 80:80/tcp: a program of the host uses the port: %w", syscall.EADDRINUSE), "write another port of the host"},
		{"", fmt.Errorf("allow: db:1/tcp: look up the name: no such host: %w", syscall.ENXIO), "the name is looked up once"},
		{"", fmt.Errorf("allow: db:1/tcp: its addresses, as ::1, are of the host's own network only: %w", syscall.EINVAL), "in the container that would be"},
		{"", fmt.Errorf("packet filter: allow: %w", syscall.ENOENT), "allow needs nftables"},
		{"", fmt.Errorf("packet filter: %w", syscall.EOPNOTSUPP), "masquerade and publish need nftables"},
		{"", fmt.Errorf("--net x: lock the host's network namespace: another program holds it: %w", syscall.EAGAIN), "try again; /proc/locks"},
		{"", fmt.Errorf("--net x: make 10.0.0.1 the gateway: %w", syscall.EEXIST), "another interface has a default route"},
		{"", fmt.Errorf("--net x: bridge husk0: IPv6 is disabled on this device: %w", syscall.EACCES), "leave out addresses of IPv6"},
		{"", fmt.Errorf("--net x: make network device x: Unknown device type: %w", syscall.EOPNOTSUPP), "the kernel lacks the devices"},
		{"", errNoServers, "give name servers"},
		{"", &fs.PathError{Op: "open", Path: "/etc/hosts", Err: syscall.EROFS}, "the file is to be bound on one"},
		{"", fmt.Errorf("--net x: pasta, of the package passt, is needed: %w", os.ErrNotExist), "install the package passt"},
		{"", errors.New("--net x: /usr/bin/pasta: exit status 1: Failed to open tun socket"), "pasta needs to read and write"},
		{"", errors.New("--net x: /usr/bin/pasta: exit status 1: Couldn't listen on requested ports"), "if it is about ports"},
		{"/annotations/run.husk.net.x", fmt.Errorf("bridge: needs CAP_NET_ADMIN over it: %w", syscall.EPERM), "leave out the word"},
		{"/annotations/run.husk.net.x", errNoLinks, "build husk with make"},
		{"", errNoUnpacker, "build husk with make"},
		{"/linux/netDevices/x", syscall.EPERM, "moving a network device needs"},
		{"/linux/netDevices/x", fmt.Errorf("move network device x: %w", syscall.EINVAL), "not every device"},
		{"/annotations/" + AnnotationLandlock, syscall.ENOENT, "directories and files to write to"},
		{"/hooks/prestart/0", syscall.ENOENT, "hook paths are absolute"},
		{"/linux/intelRdt", syscall.ENOSPC, "the CPU has no more of these"},
		{"/linux/intelRdt/schemata/0", syscall.EACCES, "only root may change resctrl"},
		{"/linux/intelRdt/closID", syscall.ENOENT, "give l3CacheSchema"},
		{"/linux/intelRdt/l3CacheSchema", errors.New(`"L3:0=f" does not match the class, which has 1`), "use another closID"},
		{"/linux/intelRdt", fmt.Errorf("%w: %w", syscall.ENOENT, resctrl.ErrNotMounted), "if the CPU has Intel RDT"},
		{"/linux/intelRdt", fmt.Errorf("another program holds it: %w", os.ErrDeadlineExceeded), "lslocks shows"},
		{"/linux/intelRdt", errNoClass, "create it with linux.intelRdt"},
		{"/linux/intelRdt", fmt.Errorf("the container is in the default class of service: %w", syscall.EPERM), "create the container with a class"},
		{"/linux/intelRdt/enableMonitoring", syscall.EEXIST, "remove the monitoring group"},
		{"/linux/intelRdt/closID", syscall.EEXIST, "another program has made it"},
		{"/linux/intelRdt", syscall.EEXIST, "remove the class"},
		{"/linux/namespaces/x", syscall.ENOSYS, "husk needs Linux 5.14"},
		{"", syscall.EROFS, "the file system is mounted read-only"},
		{"", syscall.ENOSPC, "no space left"},
		{"", fmt.Errorf("clone3: %w", syscall.EAGAIN), "a limit on processes"},
	}
	if len(rows) != len(hints) {
		t.Errorf("%d rows test %d hints", len(rows), len(hints))
	}
	for i, row := range rows {
		var e *Error
		if err := wrap("create", "x", at(row.field, "", row.err)); !errors.As(err, &e) || !strings.HasPrefix(e.Hint, row.want) {
			t.Errorf("%s %v: hint %q, want %q…", row.field, row.err, e.Hint, row.want)
		}
		if i < len(hints) && !strings.HasPrefix(hints[i].hint, row.want) {
			t.Errorf("row %d of the table, %q, is not tested in its place", i, hints[i].hint)
		}
	}
}

func TestFieldErrors(t *testing.T) {
	for _, err := range []error{
		&rootfs.FieldError{Field: "/f", Path: "/p", Err: syscall.EIO},
		&seccomp.FieldError{Field: "/f", Err: syscall.EIO},
		&cgroups.FieldError{Field: "/f", Err: syscall.EIO},
		&cgroups.FieldError{Field: "/f", File: "memory.max", Value: "1", Err: syscall.EIO},
	} {
		e, ok := fieldError(err).(*Error)
		if !ok || e.Field != "/f" || !errors.Is(e, syscall.EIO) || strings.Contains(e.Err.Error(), "/f") {
			t.Errorf("%T became %#v", err, e)
		}
	}
	if other := errors.New("other"); fieldError(other) != other || fieldError(nil) != nil {
		t.Error("what is no field error changed")
	}
}

func TestRemoteErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"/mounts/0\x00/data\x00open_tree /x", "/mounts/0 (/data): open_tree /x: no such file or directory"},
		{"/hostname\x00\x00", "/hostname: no such file or directory"},
		{"/process/args/0\x00\x00exec: \"x\": executable file not found in $PATH", "/process/args/0: exec: \"x\": executable file not found in $PATH"},
		{"/hooks/startContainer/0\x00\x00hook: \x1b[31mEVIL\nhusk: error: forged\xff", "/hooks/startContainer/0: hook: ?[31mEVIL husk: error: forged\ufffd: no such file or directory"},
		{"setns net", "/linux/namespaces: setns net: no such file or directory"},
	} {
		packet := []byte{1, 0, 0, 0, byte(syscall.ENOENT), 0, 0, 0}
		err := wrap("run", "x", remoteError(0xff, append(packet, c.text...)))
		if want := "run x: " + c.want; err.Error() != want || !errors.Is(err, syscall.ENOENT) {
			t.Errorf("%q, want %q", err, want)
		}
	}
	for _, packet := range [][]byte{nil, {1}, make([]byte, 7)} {
		if err := remoteError(0xff, packet); err == nil {
			t.Errorf("%v is no error", packet)
		}
	}
}
