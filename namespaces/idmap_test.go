package namespaces

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const nobody = 65534

// rootlessCases are what an ordinary user may ask for, and what comes of it.
var rootlessCases = []struct {
	name       string
	maps       []specs.LinuxIDMapping
	create     uintptr
	offsets    bool
	uid        int
	setgroups  string
	fails      string
	needHelper bool
}{
	{name: "self", maps: one(0, nobody), uid: 0, setgroups: "deny"},
	{name: "self, all new", maps: one(0, nobody), create: allNew, uid: 0, setgroups: "deny"},
	{name: "self, offsets", maps: one(0, nobody), create: allNew, offsets: true, uid: 0, setgroups: "deny"},
	{name: "self as 1000", maps: one(1000, nobody), uid: 1000, setgroups: "deny"},
	{name: "none", uid: nobody, setgroups: "allow"},
	{name: "range", maps: append(one(0, nobody), specs.LinuxIDMapping{ContainerID: 1, HostID: 200000, Size: 1000}), create: allNew, uid: 0, setgroups: "allow", needHelper: true},
	{name: "range, offsets", maps: append(one(0, nobody), specs.LinuxIDMapping{ContainerID: 1, HostID: 200000, Size: 1000}), create: allNew, offsets: true, uid: 0, setgroups: "allow", needHelper: true},
	{name: "not granted", maps: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1, Size: 1000}}, fails: "newgidmap", needHelper: true},
}

func one(container, host uint32) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: container, HostID: host, Size: 1}}
}

// TestRootless spawns as nobody, in a mount namespace in which nobody has
// subordinate ids.
func TestRootless(t *testing.T) {
	needRoot(t)
	for i, c := range rootlessCases {
		t.Run(c.name, func(t *testing.T) {
			if _, err := findHelper("newuidmap", "", ""); err != nil && c.needHelper {
				t.Skip(err)
			}
			cmd := exec.Command("/proc/self/exe")
			cmd.Args = []string{"probe", "rootless", fmt.Sprint(i), t.TempDir()}
			cmd.Stderr = os.Stderr
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
			parent, theirs := must2(Pair())
			defer parent.Close()
			cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(theirs.fd), "conn")}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			cmd.ExtraFiles[0].Close()
			kind, payload, _, err := parent.Recv(soon())
			exit := cmd.Wait()
			switch {
			case err != nil:
				t.Fatal(err, exit)
			case kind == KindError && c.fails == "":
				t.Fatalf("%s", payload)
			case kind == KindError:
				if !strings.Contains(string(payload), c.fails) {
					t.Errorf("%s, want %s", payload, c.fails)
				}
				return
			case c.fails != "":
				t.Fatal("succeeded")
			}
			var f facts
			if err := json.Unmarshal(payload, &f); err != nil {
				t.Fatal(err)
			}
			if f.UID != c.uid || f.GID != c.uid || f.SetGroups != c.setgroups {
				t.Errorf("ids %d:%d, setgroups %s", f.UID, f.GID, f.SetGroups)
			}
			if f.Status["CapEff"] != f.Status["CapBnd"] {
				t.Errorf("CapEff %s, CapBnd %s", f.Status["CapEff"], f.Status["CapBnd"])
			}
			if !slices.Equal(strings.Fields(f.UIDMap), strings.Fields(string(formatMap(c.maps)))) {
				t.Errorf("uid_map %q", f.UIDMap)
			}
			wantNew(t, &f, c.create|unix.CLONE_NEWUSER|unix.CLONE_NEWNS)
			if c.offsets && f.Uptime < 1<<20 {
				t.Errorf("uptime %d", f.Uptime)
			}
		})
	}
	reapOrphans()
}

// rootless is the probe of TestRootless.
func rootless() {
	c := FromFD(3)
	var index int
	fmt.Sscan(os.Args[2], &index)
	rc := rootlessCases[index]
	must(0, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	for _, file := range []string{"subuid", "subgid"} {
		text := must(os.ReadFile("/etc/" + file))
		for _, entry := range []string{"nobody:200000:65536\n", "nogroup:200000:65536\n"} {
			text = append(text, entry...)
		}
		path := os.Args[3] + "/" + file
		must(0, os.WriteFile(path, text, 0o644))
		must(0, unix.Mount(path, "/etc/"+file, "", unix.MS_BIND, ""))
	}
	must(0, syscall.Setgroups(nil))
	must(0, syscall.Setgid(nobody))
	must(0, syscall.Setuid(nobody))
	must(0, unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)) // as a fresh exec has it
	cfg := &Config{New: rc.create | unix.CLONE_NEWUSER, UIDMaps: rc.maps, GIDMaps: rc.maps, Cgroup: -1, Exe: must(Sealed(new(Config))), Args: []string{"probe", "report"}}
	if rc.offsets {
		cfg.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1 << 20}}
	}
	parent, theirs := must2(Pair())
	cfg.Child = theirs
	if _, err := Spawn(cfg); err != nil {
		c.Send(KindError, []byte(err.Error()))
		return
	}
	kind, payload, _, err := parent.Recv(soon())
	if err != nil {
		payload = []byte(err.Error())
		kind = KindError
	}
	c.Send(kind, payload)
}

func TestHelperMissing(t *testing.T) {
	if _, err := findHelper("newnothing", "uidmap", ""); err == nil || !strings.Contains(err.Error(), "package uidmap") {
		t.Error(err)
	}
}

func TestFormatMap(t *testing.T) {
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1 << 31, Size: 4294967295}, {ContainerID: 7, HostID: 8, Size: 9}}
	if got, want := string(formatMap(maps)), "0 2147483648 4294967295\n7 8 9\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// FuzzFormatMap: what is written reads back as the same numbers.
func FuzzFormatMap(f *testing.F) {
	f.Add(uint32(0), uint32(1000), uint32(1), uint32(1), uint32(100000), uint32(65536))
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g uint32) {
		maps := []specs.LinuxIDMapping{{ContainerID: a, HostID: b, Size: c}, {ContainerID: d, HostID: e, Size: g}}
		for line := range strings.Lines(string(formatMap(maps))) {
			var m specs.LinuxIDMapping
			if n, err := fmt.Sscanf(line, "%d %d %d\n", &m.ContainerID, &m.HostID, &m.Size); n != 3 || m != maps[0] {
				t.Fatalf("%q: %v, %v", line, m, err)
			}
			maps = maps[1:]
		}
	})
}
