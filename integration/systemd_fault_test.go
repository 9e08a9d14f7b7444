package integration

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/huskrun/husk/cgroups/systemd/systemdtest"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A systemd that fails at any step of create or delete, in any way, is one that husk gets
// over or an error that names the unit, in half a minute; and nothing is left. Fault 9 of
// those that are known of runc and others.
func TestFaultSystemd(t *testing.T) {
	for _, step := range []string{"Version", "StartTransientUnit", "JobRemoved", "ControlGroup", "SetUnitProperties", "StopUnit"} {
		for _, how := range []string{"mute", "error", "gone", "gone once"} {
			t.Run(step+" "+how, func(t *testing.T) {
				if how == "mute" && step != "SetUnitProperties" && testing.Short() {
					t.Skip("takes 25 s")
				}
				box(t, func(t *testing.T) { faultySystemd(t, step, how) })
			})
		}
	}
}

func faultySystemd(t *testing.T, step, how string) {
	if systemdDriver {
		t.Skip("systemd is sound here")
	}
	f := boxSystemd(t)
	b := newBundle(t, func(s *specs.Spec) {
		if has(t, "pids") { // without a limit there is nothing to be set
			limit := int64(20)
			s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
		}
	})
	if step == "SetUnitProperties" && !has(t, "pids") {
		t.Skip("needs the controller pids")
	}
	if step == "StopUnit" {
		b.must("--systemd-cgroup", "create", "c1")
		spoil(f, step, how)
		b.must("delete", "-f", "c1")
	} else {
		spoil(f, step, how)
		r := b.husk("--systemd-cgroup", "create", "c1")
		if r.code != 0 && !strings.Contains(r.stderr, "husk-c1.scope") {
			t.Errorf("the unit is not named: %s", r.stderr)
		}
		if ok := how == "gone once"; ok != (r.code == 0) && step+how != "JobRemovedgone" {
			t.Errorf("exit %d: %s", r.code, r.stderr)
		}
	}
	// Once it is sound again the same container can be had.
	spoil(f, step, "")
	b.must("delete", "-f", "c1")
	clear(f.Units) // as systemd does by itself when a scope is empty
	b.must("--systemd-cgroup", "create", "c1")
	b.must("delete", "-f", "c1")
	if len(f.Units) > 0 {
		t.Errorf("units are left: %v", f.Units)
	}
}

// has says whether the box's hierarchy has a controller.
func has(t *testing.T, controller string) bool {
	data, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	must(t, err)
	return strings.Contains(" "+strings.TrimSpace(string(data))+" ", " "+controller+" ")
}

// boxSystemd is a systemd for a box, where there is none. It makes real cgroups.
func boxSystemd(t *testing.T) *systemdtest.Fake {
	const top = "/sys/fs/cgroup"
	must(t, os.MkdirAll("/run/systemd", 0o755))
	t.Cleanup(func() { os.RemoveAll("/run/systemd") })
	must(t, os.Mkdir(top+"/system.slice", 0o755))
	t.Cleanup(func() { unix.Rmdir(top + "/system.slice") })
	f := systemdtest.New(t, "/run/systemd/private", false)
	f.Started = func(unit string, props map[string]dbus.Variant) string {
		group := "/system.slice/" + unit
		pids, _ := props["PIDs"].Value().([]uint32)
		if err := os.Mkdir(top+group, 0o755); err != nil {
			t.Error(err)
		}
		for _, pid := range pids {
			if err := os.WriteFile(filepath.Join(top, group, "cgroup.procs"), []byte(strconv.Itoa(int(pid))), 0); err != nil {
				t.Error(err)
			}
		}
		return group
	}
	// As soon as it is empty, which here is when husk has killed its process.
	f.Stopped = func(u *systemdtest.Unit) {
		go func() {
			for end := time.Now().Add(settle); unix.Rmdir(top+u.Cgroup) == unix.EBUSY && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
		}()
	}
	f.Listen()
	return f
}

// spoil makes a step of the conversation fail; how "" mends it.
func spoil(f *systemdtest.Fake, step, how string) {
	fail := func(p *systemdtest.Peer, m *dbus.Message) {
		switch how {
		case "error":
			p.Fail(m, "org.freedesktop.DBus.Error.Failed", "the test says no")
		case "gone once":
			spoil(f, step, "")
			p.Conn.Close()
		case "gone":
			p.Conn.Close()
		}
	}
	property := func(p *systemdtest.Peer, m *dbus.Message) {
		if m.Body[1] != step || step == "ControlGroup" && len(f.Units) == 0 {
			p.Answer(m)
			return
		}
		fail(p, m)
	}
	removed := func(p *systemdtest.Peer, m *dbus.Message) {
		p.Add(m)
		p.Reply(m, dbus.ObjectPath(systemdtest.Job))
		if how == "error" {
			p.Removed(systemdtest.Job, m.Body[0].(string), "failed")
			return
		}
		fail(p, m)
	}
	member, handler := step, fail
	switch step {
	case "Version", "ControlGroup":
		member, handler = "Get", property
	case "JobRemoved":
		member, handler = "StartTransientUnit", removed
	}
	if how == "" {
		handler = nil
	}
	f.Handle(member, handler)
}
