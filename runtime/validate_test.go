package runtime

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// patched is testdata/config/full.json with a JSON merge patch (RFC 7396) applied.
func patched(t *testing.T, patch string) *Config {
	t.Helper()
	base, err := os.ReadFile("testdata/config/full.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc, p any
	if err := json.Unmarshal(base, &doc); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(patch), &p, exactNumbers()); err != nil {
		t.Fatalf("%s: %v", patch, err)
	}
	data, err := json.Marshal(merge(doc, p))
	if err != nil {
		t.Fatal(err)
	}
	c, err := decodeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	c.Bundle = "/"
	return c
}

// exactNumbers keeps numbers as they are written, where any has float64.
func exactNumbers() json.Options {
	return json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, p *any) error {
		if d.PeekKind() != '0' {
			return errors.ErrUnsupported
		}
		v, err := d.ReadValue()
		*p = v.Clone()
		return err
	}))
}

func merge(doc, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	d, ok := doc.(map[string]any)
	if !ok {
		d = map[string]any{}
	}
	for k, v := range p {
		if v == nil {
			delete(d, k)
		} else {
			d[k] = merge(d[k], v)
		}
	}
	return d
}

func messages(warnings []Problem, err error) string {
	var lines []string
	for _, w := range warnings {
		lines = append(lines, "warning "+w.String())
	}
	if err != nil {
		lines = append(lines, err.Error())
	}
	return strings.Join(lines, "\n")
}

// TestValid: what must not be complained about.
func TestValid(t *testing.T) {
	for _, patch := range []string{
		`{}`,
		`{"linux":null,"mounts":null,"hostname":null,"domainname":null,"root":{"readonly":false},"process":{"user":{"additionalGids":null}}}`,
		`{"process":null}`,
		`{"ociVersion":"1.0.0"}`, `{"ociVersion":"1.0.0-rc5"}`, `{"ociVersion":"1.2.10-dev.1+git-abc.7"}`,
		`{"process":{"user":{"uid":4294967294,"gid":4294967294,"umask":511},"oomScoreAdj":-1000}}`,
		`{"process":{"oomScoreAdj":1000,"env":["A=","A=b=c","A=line\nbreak"],"rlimits":[{"type":"RLIMIT_AS","soft":18446744073709551615,"hard":18446744073709551615}]}}`,
		`{"process":{"terminal":false,"consoleSize":{"height":70000,"width":70000}}}`,
		`{"process":{"terminal":true,"consoleSize":{"height":65535,"width":65535}}}`,
		`{"hooks":{"poststop":[{"path":"/bin/true","timeout":1}]}}`,
		`{"annotations":{"com.example":"x","run.husk.umask":"inherit"}}`,
		`{"linux":{"cgroupsPath":"system.slice:husk:id"}}`, `{"linux":{"cgroupsPath":"/a/b..c"}}`,
		`{"linux":{"sysctl":{"net/ipv4/conf/eth0.1/mc_forwarding":"1","net.ipv4.conf.eth0/1.forwarding":"1","kernel.domainname":"x","user.max_user_namespaces":"0","kernel.msg_next_id":"1","fs/mqueue/msg_max":"1"},"namespaces":[{"type":"network"},{"type":"uts"},{"type":"ipc"},{"type":"user"},{"type":"mount"}],"uidMappings":[{"containerID":0,"hostID":0,"size":4294967295}],"gidMappings":[{"containerID":0,"hostID":0,"size":4294967295}]}}`,
		`{"linux":{"devices":[{"path":"/dev/p","type":"p"},{"path":"/dev/c","type":"c","major":4095,"minor":1048575,"fileMode":8630},{"path":"/dev/u","type":"u","major":1,"minor":3,"uid":0,"gid":0}]}}`,
		`{"linux":{"resources":{"devices":[{"allow":true},{"allow":true,"type":"a","access":"rwm","major":-1,"minor":-1},{"allow":true,"type":"b","major":8}],"hugepageLimits":[{"pageSize":"64KB","limit":1},{"pageSize":"2MB","limit":1},{"pageSize":"1GB","limit":1}],"unified":{"memory.high":"1","io.max":"a\nb"}}}}`,
		`{"linux":{"rootfsPropagation":"rshared"}}`,
		`{"linux":{"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"time"}],"timeOffsets":{"monotonic":{"secs":-5,"nanosecs":999999999},"boottime":{}}}}`,
		`{"linux":{"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"user","path":"/proc/1/ns/user"}]},"process":{"user":{"uid":70000}}}`,
		`{"linux":{"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"network","path":"/nowhere"}],"sysctl":{"net.ipv4.ip_forward":"1"}}}`,
		`{"mounts":[{"destination":"/a","source":"b","options":["rbind"]}]}`,
		`{"process":{"scheduler":{"policy":"SCHED_BATCH","nice":19,"flags":["SCHED_FLAG_RESET_ON_FORK"]}}}`,
		`{"process":{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":7}}}`,
		`{"process":{"execCPUAffinity":{"initial":"0-3,7","final":"0"}}}`,
		`{"linux":{"personality":{"domain":"LINUX32"}}}`,
		`{"linux":{"memoryPolicy":{"mode":"MPOL_BIND","nodes":"0-1,3","flags":["MPOL_F_STATIC_NODES"]}}}`,
		`{"process":{"scheduler":{"policy":"SCHED_DEADLINE","runtime":1024,"deadline":1024}}}`,
		`{"linux":{"memoryPolicy":{"mode":"MPOL_PREFERRED_MANY","nodes":"0, 2-3","flags":["MPOL_F_NUMA_BALANCING"]}}}`,
		`{"process":{"apparmorProfile":"unconfined","selinuxLabel":""}}`,
	} {
		if got := messages(Validate(patched(t, patch))); got != "" {
			t.Errorf("%s\n%s", patch, got)
		}
	}
}

func ranges(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`{"containerID":%d,"hostID":%d,"size":1}`, i, i))
	}
	return "[" + strings.Join(list, ",") + "]"
}

// TestMessages has every message, each made by one change of a valid config.
func TestMessages(t *testing.T) {
	const userns = `"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"user"}]`
	const noMount = `"namespaces":[{"type":"uts"},{"type":"user","path":"/u"}]`
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "")
	for _, test := range []struct{ patch, want string }{
		{`{"ociVersion":""}`, `/ociVersion: is missing; write the version of the specification, as in "1.3.0"`},
		{`{"ociVersion":"2.0.0"}`, `/ociVersion: "2.0.0" is not a version 1 of the specification; write 1.MINOR.PATCH, as in "1.3.0"`},
		{`{"ociVersion":"9.9.9"}`, `/ociVersion: "9.9.9" is not a version 1 of the specification; write 1.MINOR.PATCH, as in "1.3.0"`},
		{`{"ociVersion":"0.5.0"}`, `/ociVersion: "0.5.0" is not a version 1 of the specification; write 1.MINOR.PATCH, as in "1.3.0"`},
		{`{"ociVersion":"1.0"}`, `/ociVersion: "1.0" is not a version 1 of the specification; write 1.MINOR.PATCH, as in "1.3.0"`},
		{`{"ociVersion":"1.02.0"}`, `/ociVersion: "1.02.0" is not a version 1 of the specification; write 1.MINOR.PATCH, as in "1.3.0"`},
		{`{"ociVersion":"1.2.3-"}`, `/ociVersion: "1.2.3-" is not a version 1 of the specification; write 1.MINOR.PATCH, as in "1.3.0"`},
		{`{"ociVersion":"v1.2.3"}`, `/ociVersion: "v1.2.3" is not a version 1 of the specification; write 1.MINOR.PATCH, as in "1.3.0"`},

		{`{"root":null}`, `/root/path: is missing; write the path of the directory that becomes /`},
		{`{"root":{"path":""}}`, `/root/path: is missing; write the path of the directory that becomes /`},
		{`{"root":{"path":"no/where"}}`, `/root/path: "/no/where" does not exist; write the path of a directory, relative to the bundle or absolute`},
		{`{"root":{"path":"` + file + `"}}`, `/root/path: "` + file + `" is not a directory; write the path of a directory, relative to the bundle or absolute`},

		{`{"hostname":"h","linux":{"namespaces":[{"type":"mount"}]},"domainname":null}`, `/hostname: would rename the host; add {"type": "uts"} to /linux/namespaces`},
		{`{"domainname":"d","linux":{"namespaces":[{"type":"mount"},{"type":"uts","path":"/proc/self/ns/uts"}]},"hostname":null}`, `/domainname: would rename the host; add {"type": "uts"} to /linux/namespaces`},
		{`{"hostname":"` + strings.Repeat("h", 65) + `"}`, `/hostname: has 65 bytes; write at most 64`},
		{`{"annotations":{"":"x"}}`, `/annotations: has an entry without a name; name it in reverse domain notation, as in "com.example.key"`},
		{`{"annotations":{"run.husk.umask":"022"}}`, `/annotations/run.husk.umask: "022" is not a way to get the umask; write "inherit", or set /process/user/umask`},
		{`{"annotations":{"run.husk.init":"false"}}`, `/annotations/run.husk.init: "false" is not a way to get an init; write "true", or leave it out`},
		{`{"annotations":{"run.husk.init":"true"},"process":{"capabilities":{"bounding":["CAP_SYS_PTRACE"]}}}`, `/annotations/run.husk.init: keeps an init that a process with CAP_SYS_PTRACE could take over; leave out one of the two; tracing one's own processes needs no capability`},

		{`{"process":{"args":[]}}`, `/process/args/0: is missing; write the program to run, as in "sh"`},
		{`{"process":{"args":null}}`, `/process/args/0: is missing; write the program to run, as in "sh"`},
		{`{"process":{"args":["","x"]}}`, `/process/args/0: is missing; write the program to run, as in "sh"`},
		{`{"process":{"cwd":null}}`, `/process/cwd: is missing; write an absolute path`},
		{`{"process":{"cwd":"tmp"}}`, `/process/cwd: "tmp" is relative; write an absolute path`},
		{`{"process":{"env":["PATH=/bin","HOSTSECRET"]}}`, `/process/env/1: "HOSTSECRET" is not a variable; write NAME=value`},
		{`{"process":{"env":["=x"]}}`, `/process/env/0: "=x" is not a variable; write NAME=value`},
		{`{"process":{"user":{"uid":4294967295}}}`, `/process/user/uid: 4294967295 is not an id; write a number up to 4294967294`},
		{`{"process":{"user":{"gid":4294967295}}}`, `/process/user/gid: 4294967295 is not an id; write a number up to 4294967294`},
		{`{"process":{"user":{"additionalGids":[1,4294967295]}}}`, `/process/user/additionalGids/1: 4294967295 is not an id; write a number up to 4294967294`},
		{`{"process":{"user":{"additionalGids":[0` + strings.Repeat(",0", 65536) + `]}}}`, `/process/user/additionalGids: has 65537 groups; write at most 65536`},
		{`{"process":{"user":{"umask":512}}}`, `/process/user/umask: is 512; write the decimal of an octal mask up to 0777, as in 18 for 022`},
		{`{"process":{"user":{"uid":10,"additionalGids":[11]}},"linux":{` + userns + `,"uidMappings":[{"containerID":0,"hostID":0,"size":10}],"gidMappings":[{"containerID":0,"hostID":0,"size":11}]}}`, "/process/user/uid: 10 is not mapped into the user namespace; add it to /linux/uidMappings\n/process/user/additionalGids/0: 11 is not mapped into the user namespace; add it to /linux/gidMappings"},
		{`{"process":{"capabilities":{"bounding":["CAP_CHOWN","CAP_FUTURE","chown"]}}}`, `warning /process/capabilities/bounding/1: "CAP_FUTURE" is not a capability and is left out; write it as in "CAP_NET_RAW"` + "\n" + `warning /process/capabilities/bounding/2: "chown" is not a capability and is left out; write it as in "CAP_NET_RAW"`},
		{`{"process":{"capabilities":{"effective":["CAP_CHOWN","CAP_BPF"]}}}`, `warning /process/capabilities/effective/1: CAP_BPF is not in permitted and is left out; add it to /process/capabilities/permitted`},
		{`{"process":{"capabilities":{"ambient":["CAP_CHOWN"]}}}`, `warning /process/capabilities/ambient/0: CAP_CHOWN is not in inheritable and is left out; add it to /process/capabilities/inheritable`},
		{`{"process":{"rlimits":[{"type":"RLIMIT_FOO","soft":1,"hard":1}]}}`, `/process/rlimits/0/type: "RLIMIT_FOO" is not a resource limit; use one of RLIMIT_AS, RLIMIT_CORE, RLIMIT_CPU, RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_LOCKS, RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_NICE, RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_RSS, RLIMIT_RTPRIO, RLIMIT_RTTIME, RLIMIT_SIGPENDING, RLIMIT_STACK`},
		{`{"process":{"rlimits":[{"type":"RLIMIT_AS","soft":1,"hard":1},{"type":"RLIMIT_AS","soft":2,"hard":2}]}}`, `/process/rlimits/1/type: RLIMIT_AS is already given by /process/rlimits/0; keep one of them`},
		{`{"process":{"rlimits":[{"type":"RLIMIT_AS","soft":2,"hard":1}]}}`, `/process/rlimits/0/soft: 2 is above the hard limit 1; lower soft or raise hard`},
		{`{"process":{"oomScoreAdj":1001}}`, `/process/oomScoreAdj: is 1001; write a number from -1000 to 1000`},
		{`{"process":{"oomScoreAdj":-1001}}`, `/process/oomScoreAdj: is -1001; write a number from -1000 to 1000`},
		{`{"process":{"terminal":true,"consoleSize":{"height":65536,"width":80}}}`, `/process/consoleSize: is 65536 lines of 80 columns; write at most 65535 each`},

		{`{"hooks":{"prestart":[{"path":"x"}]}}`, `/hooks/prestart/0/path: "x" is relative; write an absolute path`},
		{`{"hooks":{"createRuntime":[{}]}}`, `/hooks/createRuntime/0/path: is missing; write an absolute path`},
		{`{"hooks":{"createContainer":[{"path":"/x","timeout":0}]}}`, `/hooks/createContainer/0/timeout: is 0; write seconds above 0, or leave it out for no limit`},
		{`{"hooks":{"startContainer":[{"path":"/x","timeout":-1}]}}`, `/hooks/startContainer/0/timeout: is -1; write seconds above 0, or leave it out for no limit`},
		{`{"hooks":{"poststart":[{"path":"/x"},{"path":"/x","env":["*"]}]}}`, `/hooks/poststart/1/env/0: "*" is not a variable; write NAME=value`},
		{`{"hooks":{"poststop":[{"path":"../x"}]}}`, `/hooks/poststop/0/path: "../x" is relative; write an absolute path`},

		{`{"mounts":[{"type":"proc"}]}`, `/mounts/0/destination: is missing; write an absolute path in the container`},
		{`{"mounts":[{"destination":"x","type":"proc"}]}`, `warning /mounts/0/destination: "x" is relative, which is deprecated; write "/x"`},
		{`{"mounts":[{"destination":"/x","source":"/x"}]}`, `/mounts/0/type: is missing; write a filesystem type, or add "bind" to the options`},
		{`{"mounts":[{"destination":"/x","type":"bind","options":["bind"]}]}`, `/mounts/0/source: is missing; write the path to bind`},

		{`{"linux":{"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"net"}]}}`, `/linux/namespaces/2/type: "net" is not a namespace type; use one of cgroup, ipc, mount, network, pid, time, uts, user`},
		{`{"linux":{"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"uts"}]}}`, `/linux/namespaces/2/type: "uts" is already given by /linux/namespaces/1; keep one of them`},
		{`{"linux":{"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"network","path":"ns/net"}]}}`, `/linux/namespaces/2/path: "ns/net" is relative; write an absolute path`},

		{`{"linux":{"uidMappings":[{"containerID":0,"hostID":0,"size":1}],"gidMappings":[{"containerID":0,"hostID":0,"size":1}]}}`, `/linux/uidMappings: needs a user namespace; add {"type": "user"} to /linux/namespaces`},
		{`{"linux":{` + userns + `}}`, `warning /linux/uidMappings: is missing, so nobody in the user namespace can own a file; map container id 0 with uidMappings and gidMappings`},
		{`{"linux":{"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"user","path":"/u"}],"uidMappings":[{"containerID":0,"hostID":0,"size":1}],"gidMappings":[{"containerID":0,"hostID":0,"size":1}]}}`, `warning /linux/uidMappings: is not applied, as the user namespace "/u" has its own; remove it`},
		{`{"linux":{` + userns + `,"uidMappings":[{"containerID":0,"hostID":0,"size":1}]}}`, `/linux/gidMappings: is missing, while /linux/uidMappings is given; give both`},
		{`{"linux":{` + userns + `,"uidMappings":[{"containerID":0,"hostID":0,"size":1}],"gidMappings":[{"containerID":0,"hostID":0,"size":1},{"containerID":1,"hostID":1,"size":0}]}}`, `/linux/gidMappings/1/size: is 0; write how many ids to map`},
		{`{"linux":{` + userns + `,"uidMappings":[{"containerID":0,"hostID":0,"size":1}],"gidMappings":[{"containerID":0,"hostID":0,"size":1},{"containerID":4294967295,"hostID":1,"size":1}]}}`, `/linux/gidMappings/1: goes beyond the id 4294967294; lower its size`},
		{`{"linux":{` + userns + `,"gidMappings":[{"containerID":0,"hostID":0,"size":1}],"uidMappings":[{"containerID":0,"hostID":0,"size":1},{"containerID":1,"hostID":2147483648,"size":2147483648}]}}`, `/linux/uidMappings/1: goes beyond the id 4294967294; lower its size`},
		{`{"linux":{` + userns + `,"gidMappings":[{"containerID":0,"hostID":0,"size":1}],"uidMappings":[{"containerID":0,"hostID":0,"size":10},{"containerID":9,"hostID":10,"size":1}]}}`, `/linux/uidMappings/1/containerID: overlaps with /linux/uidMappings/0; map each id once`},
		{`{"linux":{` + userns + `,"gidMappings":[{"containerID":0,"hostID":0,"size":1}],"uidMappings":[{"containerID":0,"hostID":0,"size":10},{"containerID":10,"hostID":9,"size":1}]}}`, `/linux/uidMappings/1/hostID: overlaps with /linux/uidMappings/0; map each id once`},
		{`{"linux":{` + userns + `,"uidMappings":` + ranges(340) + `,"gidMappings":` + ranges(341) + `}}`, `/linux/gidMappings: has 341 ranges; write at most 340, which is what the kernel takes`},

		{`{"linux":{"sysctl":{"kernel.core_pattern":"|/x"}}}`, `/linux/sysctl/kernel.core_pattern: belongs to no namespace, so it would change the host; set it on the host`},
		{`{"linux":{"sysctl":{"net/../kernel/core_pattern":"x"}}}`, `/linux/sysctl/net~1..~1kernel~1core_pattern: is not the name of a setting; write it as in "net.ipv4.ip_forward"`},
		{`{"linux":{"sysctl":{"net.//.kernel.core_pattern":"x"}}}`, `/linux/sysctl/net.~1~1.kernel.core_pattern: is not the name of a setting; write it as in "net.ipv4.ip_forward"`},
		{`{"linux":{"sysctl":{"/net/x":"x"}}}`, `/linux/sysctl/~1net~1x: is not the name of a setting; write it as in "net.ipv4.ip_forward"`},
		{`{"linux":{"sysctl":{"net":"x"}}}`, `/linux/sysctl/net: is not the name of a setting; write it as in "net.ipv4.ip_forward"`},
		{`{"linux":{"sysctl":{"net.ipv4..x":"x"}}}`, `/linux/sysctl/net.ipv4..x: is not the name of a setting; write it as in "net.ipv4.ip_forward"`},
		{`{"linux":{"sysctl":{"kernel.hostname":"x"}}}`, `/linux/sysctl/kernel.hostname: is set by another property; use /hostname`},
		{`{"linux":{"sysctl":{"kernel/shmmax":"1"},"namespaces":[{"type":"mount"},{"type":"uts"}]}}`, `/linux/sysctl/kernel~1shmmax: belongs to the ipc namespace, which is the host's; add {"type": "ipc"} to /linux/namespaces`},
		{`{"linux":{"sysctl":{"fs.mqueue.msg_max":"1"},"namespaces":[{"type":"mount"},{"type":"uts"}]}}`, `/linux/sysctl/fs.mqueue.msg_max: belongs to the ipc namespace, which is the host's; add {"type": "ipc"} to /linux/namespaces`},
		{`{"linux":{"sysctl":{"user.max_net_namespaces":"1"}}}`, `/linux/sysctl/user.max_net_namespaces: belongs to the user namespace, which is the host's; add {"type": "user"} to /linux/namespaces`},
		{`{"linux":{"sysctl":{"net.ipv4.ip_forward":"1"},"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"network","path":"/proc/self/ns/net"}]}}`, `/linux/sysctl/net.ipv4.ip_forward: belongs to the network namespace, whose path is husk's own; remove the path or the setting`},
		{`{"linux":{"sysctl":{"net.ipv4.ip_forward":"1\n2"}}}`, `/linux/sysctl/net.ipv4.ip_forward: has a value with a line break or +; write one value for one setting`},
		{`{"linux":{"sysctl":{"kernel.shm_rmid_forced":"1+kernel.core_pattern=|/x"}}}`, `/linux/sysctl/kernel.shm_rmid_forced: has a value with a line break or +; write one value for one setting`},
		{`{"linux":{"sysctl":{"net.ipv4.ip_forward":"1","net/ipv4/ip_forward":"0"}}}`, `/linux/sysctl/net~1ipv4~1ip_forward: is given twice, once with . and once with /; keep one of them`},

		{`{"linux":{"devices":[{"path":"dev/x","type":"c","major":1,"minor":3}]}}`, `/linux/devices/0/path: "dev/x" is relative; write an absolute path`},
		{`{"linux":{"devices":[{"path":"/dev/x","type":"x"}]}}`, `/linux/devices/0/type: "x" is not a device type; use one of c, b, u, p`},
		{`{"linux":{"devices":[{"path":"/dev/x","type":"b","major":4096,"minor":-1}]}}`, "/linux/devices/0/major: is 4096; write a number from 0 to 4095\n/linux/devices/0/minor: is -1; write a number from 0 to 1048575"},
		{`{"linux":{"devices":[{"path":"/dev/x","type":"p","fileMode":65536}]}}`, `/linux/devices/0/fileMode: is 65536; write the decimal of an octal mode, as in 438 for 0666`},
		{`{"linux":{"devices":[{"path":"/dev/x","type":"p","uid":4294967295}]}}`, `/linux/devices/0/uid: 4294967295 is not an id; write a number up to 4294967294`},
		{`{"linux":{"devices":[{"path":"/dev/x","type":"p","gid":7}],` + userns + `,"uidMappings":[{"containerID":0,"hostID":0,"size":5}],"gidMappings":[{"containerID":0,"hostID":0,"size":6}]}}`, `/linux/devices/0/gid: 7 is not mapped into the user namespace; add it to /linux/gidMappings`},

		{`{"linux":{"maskedPaths":["/proc/kcore","proc"]}}`, `/linux/maskedPaths/1: "proc" is relative; write an absolute path`},
		{`{"linux":{"readonlyPaths":[""]}}`, `/linux/readonlyPaths/0: is missing; write an absolute path`},
		{`{"linux":{"rootfsPropagation":"ro"}}`, `/linux/rootfsPropagation: "ro" is not a propagation mode; use one of shared, slave, private, unbindable, rshared, rslave, rprivate, runbindable`},
		{`{"linux":{` + noMount + `}}`, "/root/readonly: needs a mount namespace of its own; add {\"type\": \"mount\"} to /linux/namespaces\n/mounts: needs a mount namespace of its own; add {\"type\": \"mount\"} to /linux/namespaces\n/linux/maskedPaths: needs a mount namespace of its own; add {\"type\": \"mount\"} to /linux/namespaces\n/linux/readonlyPaths: needs a mount namespace of its own; add {\"type\": \"mount\"} to /linux/namespaces"},
		{`{"mounts":null,"root":{"readonly":false},"linux":{"maskedPaths":null,"readonlyPaths":null,"rootfsPropagation":"shared","devices":[{"path":"/dev/x","type":"p"}],"namespaces":[{"type":"uts"},{"type":"mount","path":"/m"},{"type":"user","path":"/u"}]}}`, "/linux/devices: needs a mount namespace of its own; add {\"type\": \"mount\"} to /linux/namespaces\n/linux/rootfsPropagation: needs a mount namespace of its own; add {\"type\": \"mount\"} to /linux/namespaces"},

		{`{"mounts":[{"destination":"/x","source":"/x","options":["rbind","runbindable"]}],"linux":{"rootfsPropagation":"runbindable","namespaces":[{"type":"uts"}]}}`, "/linux/rootfsPropagation: unbindable cannot be shared with another mount namespace; add {\"type\": \"mount\"} to /linux/namespaces\n/mounts/0/options/1: \"runbindable\" cannot be shared with another mount namespace; add {\"type\": \"mount\"} to /linux/namespaces"},
		{`{"mounts":[{"destination":"/x","source":"/x","options":["bind","size=1k"]}]}`, `warning /mounts/0/options/1: "size=1k" means nothing for a bind mount and is left out; remove it`},

		{`{"linux":{"cgroupsPath":"/a/../../b"}}`, `/linux/cgroupsPath: "/a/../../b" has ..; write the path without it`},
		{`{"linux":{"resources":{"devices":[{"allow":true,"type":"p"}]}}}`, `/linux/resources/devices/0/type: "p" is not a type of device rule; use one of a, b, c`},
		{`{"linux":{"resources":{"devices":[{"allow":true,"access":"rx"}]}}}`, `/linux/resources/devices/0/access: "rx" is not an access; write some of r, w and m`},
		{`{"linux":{"resources":{"devices":[{"allow":true,"type":"c","major":-2,"minor":4294967296}]}}}`, "/linux/resources/devices/0/major: is -2; write a device number, or -1 for all\n/linux/resources/devices/0/minor: is 4294967296; write a device number, or -1 for all"},
		{`{"linux":{"resources":{"hugepageLimits":[{"pageSize":"2MB/../../memory","limit":1}]}}}`, `/linux/resources/hugepageLimits/0/pageSize: "2MB/../../memory" is not a page size; write it as in "64KB", "2MB" or "1GB"`},
		{`{"linux":{"resources":{"hugepageLimits":[{"pageSize":"02MB","limit":1}]}}}`, `/linux/resources/hugepageLimits/0/pageSize: "02MB" is not a page size; write it as in "64KB", "2MB" or "1GB"`},
		{`{"linux":{"resources":{"hugepageLimits":[{"pageSize":"+2MB","limit":1}]}}}`, `/linux/resources/hugepageLimits/0/pageSize: "+2MB" is not a page size; write it as in "64KB", "2MB" or "1GB"`},
		{`{"linux":{"resources":{"hugepageLimits":[{"pageSize":"2MB","limit":1},{"pageSize":"2MB","limit":1}]}}}`, `/linux/resources/hugepageLimits/1/pageSize: "2MB" is already given by /linux/resources/hugepageLimits/0; keep one of them`},
		{`{"linux":{"resources":{"unified":{"../memory.max":"1"}}}}`, `/linux/resources/unified/..~1memory.max: is not the name of a cgroup file; write CONTROLLER.FILE, as in "memory.high"`},
		{`{"linux":{"resources":{"unified":{"..":"1","tasks":""}}}}`, "/linux/resources/unified/..: is not the name of a cgroup file; write CONTROLLER.FILE, as in \"memory.high\"\n/linux/resources/unified/tasks: is not the name of a cgroup file; write CONTROLLER.FILE, as in \"memory.high\""},

		{`{"linux":{"timeOffsets":{"monotonic":{"secs":1}}}}`, `/linux/timeOffsets: needs a time namespace; add {"type": "time"} to /linux/namespaces`},
		{`{"linux":{"timeOffsets":{"monotonic":{"secs":1}},"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"time","path":"/t"}]}}`, `/linux/timeOffsets: cannot change the existing time namespace "/t"; remove it`},
		{`{"linux":{"timeOffsets":{"realtime":{"secs":1}},"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"time"}]}}`, `/linux/timeOffsets/realtime: is not a clock with an offset; use one of monotonic, boottime`},
		{`{"linux":{"timeOffsets":{"boottime":{"nanosecs":1000000000}},"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"time"}]}}`, `/linux/timeOffsets/boottime/nanosecs: is 1000000000; write a number up to 999999999`},

		{`{"process":{"scheduler":{"policy":"X","flags":["Y"]}}}`, "/process/scheduler/policy: \"X\" is not a scheduling policy; use one of SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_ISO, SCHED_IDLE, SCHED_DEADLINE\n/process/scheduler/flags/0: \"Y\" is not a scheduling flag; use one of SCHED_FLAG_RESET_ON_FORK, SCHED_FLAG_RECLAIM, SCHED_FLAG_DL_OVERRUN, SCHED_FLAG_KEEP_POLICY, SCHED_FLAG_KEEP_PARAMS, SCHED_FLAG_UTIL_CLAMP_MIN, SCHED_FLAG_UTIL_CLAMP_MAX"},
		{`{"process":{"scheduler":{"policy":"SCHED_OTHER","nice":20}}}`, "/process/scheduler/nice: is 20; write a number from -20 to 19"},
		{`{"process":{"scheduler":{"policy":"SCHED_OTHER","priority":1}}}`, "/process/scheduler/priority: is for SCHED_FIFO and SCHED_RR only; remove it or change the policy"},
		{`{"process":{"scheduler":{"policy":"SCHED_RR","priority":100}}}`, "/process/scheduler/priority: is 100; write a number from 1 to 99 for SCHED_RR"},
		{`{"process":{"scheduler":{"policy":"SCHED_IDLE","period":1}}}`, "/process/scheduler: has runtime, deadline or period, which are for SCHED_DEADLINE only; remove them or change the policy"},
		{`{"process":{"ioPriority":{"class":"BE","priority":8}}}`, "/process/ioPriority/class: \"BE\" is not an I/O priority class; use one of IOPRIO_CLASS_RT, IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE\n/process/ioPriority/priority: is 8; write a number from 0 to 7"},
		{`{"process":{"execCPUAffinity":{"initial":"3-0","final":"a"}}}`, "/process/execCPUAffinity/initial: \"3-0\" is not a list of numbers; write it as in \"0-3,7\"\n/process/execCPUAffinity/final: \"a\" is not a list of numbers; write it as in \"0-3,7\""},
		{`{"linux":{"personality":{"domain":"BSD","flags":["X"]}}}`, "/linux/personality/domain: \"BSD\" is not a personality; use one of LINUX, LINUX32\n/linux/personality/flags: has flags, of which none are defined; remove them"},
		{`{"linux":{"memoryPolicy":{"mode":"MPOL_X","nodes":"x","flags":["Y"]}}}`, "/linux/memoryPolicy/mode: \"MPOL_X\" is not a memory policy; use one of MPOL_DEFAULT, MPOL_BIND, MPOL_INTERLEAVE, MPOL_WEIGHTED_INTERLEAVE, MPOL_PREFERRED, MPOL_PREFERRED_MANY, MPOL_LOCAL\n/linux/memoryPolicy/flags/0: \"Y\" is not a memory policy flag; use one of MPOL_F_NUMA_BALANCING, MPOL_F_RELATIVE_NODES, MPOL_F_STATIC_NODES\n/linux/memoryPolicy/nodes: \"x\" is not a list of numbers; write it as in \"0-3,7\""},
		{`{"linux":{"memoryPolicy":{"mode":"MPOL_LOCAL","nodes":"0"}}}`, "/linux/memoryPolicy/nodes: does not go with MPOL_LOCAL; remove it"},
		{`{"linux":{"memoryPolicy":{"mode":"MPOL_INTERLEAVE","nodes":""}}}`, "/linux/memoryPolicy/nodes: is missing, which MPOL_INTERLEAVE needs; write it as in \"0-3,7\""},
		{`{"process":{"scheduler":{"policy":"SCHED_DEADLINE","runtime":1,"deadline":2,"period":3}}}`, `/process/scheduler/runtime: is 1; write at least 1024 nanoseconds`},
		{`{"process":{"scheduler":{"policy":"SCHED_DEADLINE","runtime":4000,"deadline":3000,"period":2000}}}`, "/process/scheduler/deadline: 3000 is below the runtime 4000; write nanoseconds with runtime ≤ deadline ≤ period\n/process/scheduler/period: 2000 is below the deadline 3000; write nanoseconds with runtime ≤ deadline ≤ period"},
		{`{"process":{"scheduler":{"policy":"SCHED_ISO"}}}`, `/process/scheduler/policy: SCHED_ISO is not implemented by this kernel; use SCHED_BATCH, or a real-time policy`},
		{`{"linux":{"memoryPolicy":{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]}}}`, `/linux/memoryPolicy/flags: has both MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES; keep one of them`},
		{`{"linux":{"memoryPolicy":{"mode":"MPOL_PREFERRED","flags":["MPOL_F_RELATIVE_NODES"]}}}`, `/linux/memoryPolicy/flags: says how to read nodes, of which there are none; remove MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES`},
		{`{"linux":{"memoryPolicy":{"mode":"MPOL_LOCAL","flags":["MPOL_F_NUMA_BALANCING"]}}}`, `/linux/memoryPolicy/flags: has MPOL_F_NUMA_BALANCING, which is for MPOL_BIND and MPOL_PREFERRED_MANY only; remove it or change the mode`},
		{`{"process":{"apparmorProfile":"a\nb","selinuxLabel":"a\nb"}}`, "/process/apparmorProfile: \"a\\nb\" is not a label; write one line of at most 4091 bytes\n/process/selinuxLabel: \"a\\nb\" is not a label; write one line of at most 4091 bytes"},
	} {
		if got := messages(Validate(patched(t, test.patch))); got != test.want {
			t.Errorf("%s\ngot  %s\nwant %s", test.patch, got, test.want)
		}
	}
}

// What is wrong with properties that few configurations have.
func TestRareProperties(t *testing.T) {
	for _, test := range []struct{ patch, want string }{
		{`{"linux":{"mountLabel":"a\nb"}}`, `/linux/mountLabel: "a\nb" is not a label; write one line of at most 4091 bytes`},

		{`{"linux":{"intelRdt":{"closID":"/","schemata":["L3:0=f"]}}}`, ``},
		{`{"linux":{"intelRdt":{"closID":"a/../b"}}}`, `/linux/intelRdt/closID: "a/../b" is not the name of a directory; write a name without /, or "/" for the root class`},
		{`{"linux":{"intelRdt":{"closID":".."}}}`, `/linux/intelRdt/closID: ".." is not the name of a directory; write a name without /, or "/" for the root class`},
		{`{"linux":{"intelRdt":{"l3CacheSchema":"L3CODE:0=f\nL3DATA:0=1","memBwSchema":"MB:0=20","enableMonitoring":true}}}`, ``},
		{`{"linux":{"intelRdt":{"memBwSchema":"MB:0=f\nMB:0=1"}}}`, `/linux/intelRdt/memBwSchema: "MB:0=f\nMB:0=1" is not one line that begins with MB:; write it as in "MB:0=20;1=70"`},
		{`{"linux":{"intelRdt":{"memBwSchema":"L3:0=f"}}}`, `/linux/intelRdt/memBwSchema: "L3:0=f" is not one line that begins with MB:; write it as in "MB:0=20;1=70"`},
		{`{"linux":{"intelRdt":{"schemata":["L3:0=f","","a\nb"]}}}`, "/linux/intelRdt/schemata/1: \"\" is not one line; put each line into an element of its own\n/linux/intelRdt/schemata/2: \"a\\nb\" is not one line; put each line into an element of its own"},

		{`{"linux":{"netDevices":{"eth0":{"name":"net%d"},"eth1":{"name":"net%d"},"eth2":{}}}}`, ``},
		{`{"linux":{"netDevices":{"a/b":{"name":"sixteen-letters."}}}}`, "/linux/netDevices/a~1b: is not the name of a network device; write up to 15 characters without / and spaces\n/linux/netDevices/a~1b/name: \"sixteen-letters.\" is not the name of a network device; write up to 15 characters without / and spaces"},
		{`{"linux":{"netDevices":{"a%d":{"name":"b"},"c":{"name":"d%s"},"e":{"name":"%d%d"}}}}`, "/linux/netDevices/a%d: is not the name of a network device; write up to 15 characters without / and spaces\n/linux/netDevices/c/name: \"d%s\" has a % that is not a template's; write %d, once, where the kernel shall put a number\n/linux/netDevices/e/name: \"%d%d\" has a % that is not a template's; write %d, once, where the kernel shall put a number"},
		{`{"linux":{"netDevices":{"a":{"name":"c"},"b":{"name":"c"},"c":{}}}}`, "/linux/netDevices/b/name: \"c\" is already given by /linux/netDevices/a; give each device its own name, or one with %d\n/linux/netDevices/c/name: \"c\" is already given by /linux/netDevices/b; give each device its own name, or one with %d"},
		{`{"annotations":{"run.husk.net.eth0":"bridge=husk0,address=10.88.0.2/24"}}`, ``},
		{`{"annotations":{"run.husk.net.eth0":"bridge=husk0","run.husk.net.eth1":"bridge=husk0"},"linux":{"netDevices":{"eth0":{"name":"x"},"v0":{"name":"eth1"}}}}`, "/annotations/run.husk.net.eth1: \"eth1\" is already given by /linux/netDevices/v0; give each network device its own name"},
		{`{"annotations":{"run.husk.net.eth0":"bridge=husk0,address=10.88.0.2"}}`, "/annotations/run.husk.net.eth0: address: \"10.88.0.2\" is not an address with the length of its network's prefix, as in 10.88.0.2/24; write it as in \"bridge=husk0,address=10.88.0.2/24,gateway=10.88.0.1\""},
		{`{"annotations":{"run.husk.net.eth0":"bridge=husk0"},"linux":{"namespaces":[{"type":"mount"},{"type":"uts"}]}}`, `/annotations/run.husk.net.eth0: needs a new network namespace; add {"type": "network"} to /linux/namespaces, without a path`},
		{`{"linux":{"netDevices":{"eth0":{}},"namespaces":[{"type":"mount"},{"type":"uts"}]}}`, "/linux/netDevices: needs a network namespace of its own; add {\"type\": \"network\"} to /linux/namespaces"},
	} {
		if got := messages(Validate(patched(t, test.patch))); got != test.want {
			t.Errorf("%s\ngot  %s\nwant %s", test.patch, got, test.want)
		}
	}
}

// TestIDMappedMounts: the rules hold whether or not this version makes such mounts.
func TestIDMappedMounts(t *testing.T) {
	for _, test := range []struct{ mount, want string }{
		{`"options":["bind","idmap"]`, `/mounts/0/options: asks for an id-mapped mount, but there is no user namespace whose mapping to take; add uidMappings and gidMappings to the mount`},
		{`"options":["rbind","ridmap"]`, `/mounts/0/options: asks for an id-mapped mount, but there is no user namespace whose mapping to take; add uidMappings and gidMappings to the mount`},
		{`"options":["bind"],"uidMappings":[{"containerID":0,"hostID":0,"size":1}]`, `/mounts/0/gidMappings: is missing, while /mounts/0/uidMappings is given; give both`},
		{`"options":["bind"],"gidMappings":[{"containerID":0,"hostID":0,"size":1}]`, `/mounts/0/uidMappings: is missing, while /mounts/0/gidMappings is given; give both`},
		{`"options":["bind"],"uidMappings":[{"containerID":0,"hostID":0,"size":1}],"gidMappings":[{"containerID":0,"hostID":0}]`, `/mounts/0/gidMappings/0/size: is 0; write how many ids to map`},
		{`"options":["bind","idmap"],"uidMappings":[{"containerID":0,"hostID":0,"size":1}],"gidMappings":[{"containerID":0,"hostID":0,"size":1}]`, ``},
	} {
		want := test.want
		if !canIDMap() {
			want = strings.TrimPrefix(want+"\n/mounts/0: is id-mapped, which is not supported by this version; remove its mappings and idmap options", "\n")
		}
		if got := messages(Validate(patched(t, `{"mounts":[{"destination":"/x","source":"/x",`+test.mount+`}]}`))); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", test.mount, got, want)
		}
	}
}

// TestAllAtOnce: one report for mistakes in every part, in the order of the file.
func TestAllAtOnce(t *testing.T) {
	warnings, err := Validate(patched(t, `{
		"ociVersion": "3.0.0",
		"root": null,
		"process": {"args": [], "cwd": "x", "env": ["x"], "user": {"uid": 4294967295}, "capabilities": {"bounding": ["CAP_X"]}, "oomScoreAdj": 5000},
		"mounts": [{"type": "proc"}],
		"hooks": {"poststop": [{"path": "x"}]},
		"linux": {"namespaces": [{"type": "uts"}, {"type": "x"}], "sysctl": {"vm.x": "1"}, "cgroupsPath": "..", "maskedPaths": ["x"]}
	}`))
	p, ok := err.(*Problems)
	if !ok {
		t.Fatalf("%T %v", err, err)
	}
	var got []string
	for _, problem := range p.List {
		got = append(got, problem.Field)
	}
	want := []string{
		"/ociVersion", "/root/path", "/process/args/0", "/process/cwd", "/process/env/0", "/process/user/uid",
		"/process/oomScoreAdj", "/mounts/0/destination", "/hooks/poststop/0/path", "/linux/namespaces/1/type",
		"/linux/sysctl/vm.x", "/linux/maskedPaths/0", "/linux/cgroupsPath",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if len(warnings) != 1 || warnings[0].Field != "/process/capabilities/bounding/0" {
		t.Errorf("warnings %v", warnings)
	}
}

func TestDefaultSpecIsValid(t *testing.T) {
	for _, rootless := range []bool{false, true} {
		s := DefaultSpec(rootless)
		s.Root.Path = "/"
		if got := messages(Validate(&Config{Spec: s, Bundle: "/"})); got != "" {
			t.Errorf("rootless %v: %s", rootless, got)
		}
	}
}

// TestDefaultSpec has the defaults that matter for security one by one (catalogue B, R18).
func TestDefaultSpec(t *testing.T) {
	s := DefaultSpec(false)
	caps := s.Process.Capabilities
	if len(caps.Inheritable)+len(caps.Ambient) != 0 {
		t.Error("inheritable or ambient capabilities")
	}
	for _, c := range []string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_BPF", "CAP_SYS_MODULE"} {
		if slices.Contains(caps.Bounding, c) {
			t.Error(c)
		}
	}
	covered := append(slices.Clone(s.Linux.MaskedPaths), s.Linux.ReadonlyPaths...)
	for _, path := range []string{
		"/proc/acpi", "/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/sys", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	} {
		if !slices.Contains(covered, path) {
			t.Error(path, "is open")
		}
	}
	if !s.Process.NoNewPrivileges || !s.Root.Readonly || s.Process.Terminal || s.Linux.Seccomp == nil {
		t.Error("no new privileges, a read-only root, no terminal and a filter are the default")
	}
	r := DefaultSpec(true)
	if r.Linux.Resources != nil || len(r.Linux.UIDMappings) != 1 || r.Linux.UIDMappings[0].Size != 1 || len(r.Linux.GIDMappings) != 1 {
		t.Error("rootless: no resources, one id")
	}
	for _, m := range r.Mounts {
		if slices.Contains(m.Options, "gid=5") || m.Type == "sysfs" || m.Type == "cgroup" {
			t.Errorf("rootless: %+v", m)
		}
	}
	if slices.Contains(r.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace}) {
		t.Error("rootless: binding the host's /sys goes with the host's network")
	}
}

// TestDefaultSpecRoundTrip: what husk spec writes, husk reads.
func TestDefaultSpecRoundTrip(t *testing.T) {
	data, err := json.Marshal(DefaultSpec(false))
	if err != nil {
		t.Fatal(err)
	}
	c, err := decodeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := reference(data); len(c.Seccomp) == 0 || c.Spec.Process.Args[0] != want.Process.Args[0] {
		t.Errorf("%+v", c)
	}
}

// TestFeatures: the document is complete, so that no engine has to guess.
func TestFeatures(t *testing.T) {
	f := SupportedFeatures()
	if f.OCIVersionMin != "1.0.0" || f.OCIVersionMax != specs.Version || len(f.Hooks) != 6 {
		t.Errorf("%+v", f)
	}
	for _, o := range []string{"rro", "ro", "tmpcopyup", "nosymfollow"} {
		if !slices.Contains(f.MountOptions, o) {
			t.Error(o)
		}
	}
	l := f.Linux
	if !slices.Equal(l.Namespaces, []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}) {
		t.Error(l.Namespaces)
	}
	if len(l.Capabilities) != 41 || len(l.Seccomp.Actions) != 9 || len(l.Seccomp.Operators) != 7 || len(l.Seccomp.Archs) != 23 {
		t.Errorf("%d capabilities, %+v", len(l.Capabilities), l.Seccomp)
	}
	if r := l.IntelRdt; !*r.Enabled || !*r.Schemata || !*r.Monitoring {
		t.Errorf("%+v", r)
	}
	if !*l.Cgroup.V2 || *l.Cgroup.V1 || *l.MountExtensions.IDMap.Enabled != canIDMap() || !*l.Seccomp.Enabled {
		t.Errorf("%+v", l)
	}
	for _, flag := range l.Seccomp.SupportedFlags {
		if !slices.Contains(l.Seccomp.KnownFlags, flag) {
			t.Error(flag)
		}
	}
	if len(l.MemoryPolicy.Modes) != 7 || len(l.MemoryPolicy.Flags) != 3 || !*l.Apparmor.Enabled || !*l.Selinux.Enabled {
		t.Errorf("%+v", l.MemoryPolicy)
	}
	for _, unknown := range []any{l.Apparmor, l.Selinux, l.IntelRdt, l.MemoryPolicy, l.NetDevices, l.Cgroup.Systemd, l.Cgroup.Rdma} {
		if unknown == nil {
			t.Error("something is left unknown")
		}
	}
}
