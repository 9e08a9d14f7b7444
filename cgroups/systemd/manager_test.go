package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/huskrun/husk/cgroups/systemd/systemdtest"
	"golang.org/x/sys/unix"
)

var c1 = Unit{Slice: "system.slice", Name: "husk-c1.scope"}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantError checks the errno (if any) and that the text has all the words.
func wantError(t *testing.T, err, is error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", words)
	}
	if is != nil && !errors.Is(err, is) {
		t.Errorf("error %q is not %q", err, is)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q lacks %q", err, w)
		}
	}
}

func TestStart(t *testing.T) {
	for _, bus := range []bool{false, true} {
		t.Run(fmt.Sprintf("bus=%v", bus), func(t *testing.T) {
			f := newFake(t, bus)
			m := f.connect()
			group, err := m.Start(c1, 4711, []Property{{Name: "MemoryMax", Value: uint64(1 << 20)}, {Name: "FromTheFuture", Value: true, since: 300}})
			must(t, err)
			if group != "/system.slice/husk-c1.scope" {
				t.Errorf("cgroup %q", group)
			}
			if bus {
				f.called("Hello", "Get", "AddMatch", "Subscribe", "StartTransientUnit", "Get")
			} else {
				f.called("Get", "StartTransientUnit", "Get")
			}
			want := map[string]any{
				"Description": "husk container husk-c1.scope", "DefaultDependencies": false, "CollectMode": "inactive-or-failed",
				"MemoryAccounting": true, "CPUAccounting": true, "IOAccounting": true, "TasksAccounting": true,
				"Slice": "system.slice", "Delegate": true, "PIDs": []uint32{4711}, "MemoryMax": uint64(1 << 20),
			}
			got := f.Units[c1.Name].Props
			for k, v := range want {
				if fmt.Sprintf("%T%v", v, v) != fmt.Sprintf("%T%v", got[k].Value(), got[k].Value()) {
					t.Errorf("%s is %v, want %v", k, got[k], v)
				}
			}
			if len(got) != len(want) {
				t.Errorf("properties %v", got)
			}
		})
	}
}

func TestStartSlice(t *testing.T) {
	f := newFake(t, false)
	f.Handle("StartTransientUnit", func(p *peer, m *dbus.Message) {
		for _, name := range []string{"Slice", "PIDs", "Delegate"} {
			if _, ok := systemdtest.Props(m.Body[2])[name]; ok {
				t.Errorf("a slice gets %s", name)
			}
		}
		p.Answer(m)
	})
	u, err := Parse("::a-b.slice", "c1", false)
	must(t, err)
	_, err = f.connect().Start(u, 4711, nil)
	must(t, err)
}

// A byte at a time, with the job's end before the answer that names the job, among
// others' jobs and a message that is too long to be read.
func TestStartDisorder(t *testing.T) {
	f := newFake(t, false)
	f.Slow = true
	f.Handle("StartTransientUnit", func(p *peer, m *dbus.Message) {
		p.Add(m)
		p.Removed("/org/freedesktop/systemd1/job/41", "other.service", "failed")
		p.Removed("/org/freedesktop/systemd1/job/40", c1.Name, "canceled")
		p.Signal("UnitNew", "x.service", dbus.ObjectPath("/org/freedesktop/systemd1/unit/x_2eservice"))
		p.Slow = false
		p.Signal("Reloading", strings.Repeat("x", 3*maxBody))
		p.Slow = true
		p.Removed(job42, c1.Name, "done")
		p.Reply(m, dbus.ObjectPath(job42))
	})
	_, err := f.connect().Start(c1, 1, nil)
	must(t, err)
}

// Others on the bus can send us signals; only the manager's count.
func TestForgedSignal(t *testing.T) {
	f := newFake(t, true)
	f.Handle("StartTransientUnit", func(p *peer, m *dbus.Message) {
		p.Send(dbus.TypeSignal, map[dbus.HeaderField]any{
			dbus.FieldPath: dbus.ObjectPath(managerPath), dbus.FieldInterface: managerIface,
			dbus.FieldMember: "JobRemoved", dbus.FieldSender: ":1.666",
		}, uint32(1), dbus.ObjectPath(job42), c1.Name, "failed")
		p.Answer(m)
	})
	_, err := f.connect().Start(c1, 1, nil)
	must(t, err)
}

func TestMute(t *testing.T) {
	silent := func(*peer, *dbus.Message) {}
	for _, member := range []string{"Hello", "AddMatch", "Subscribe", "Get", "StartTransientUnit", "JobRemoved", "flood", "half"} {
		t.Run(member, func(t *testing.T) {
			f := newFake(t, true)
			stop := make(chan bool)
			defer close(stop)
			switch f.Handle(member, silent); member {
			case "JobRemoved":
				f.Handle("StartTransientUnit", func(p *peer, m *dbus.Message) { p.Reply(m, dbus.ObjectPath(job42)) })
			case "half":
				f.Handle("StartTransientUnit", func(p *peer, m *dbus.Message) { p.Write([]byte{'l', 2, 0, 1, 0, 0}) })
			case "flood":
				f.Handle("StartTransientUnit", func(p *peer, m *dbus.Message) {
					for {
						select {
						case <-stop:
							return
						default:
							p.Removed("/org/freedesktop/systemd1/job/9", "x.service", "done")
							p.Removed("/org/freedesktop/systemd1/job/9", c1.Name, "failed")
						}
					}
				})
			}
			start := time.Now()
			m, err := connect([]address{f.addr}, 100*time.Millisecond)
			if err == nil {
				defer m.Close()
				m.patience, m.undo = 150*time.Millisecond, 50*time.Millisecond
				_, err = m.Start(c1, 1, nil)
				wantError(t, err, nil, "start unit husk-c1.scope")
			}
			wantError(t, err, os.ErrDeadlineExceeded, f.addr.path, "does not answer in time")
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// Every question takes its time, and each would have an answer in the end: the waits
// together are bounded, not only each.
func TestSlow(t *testing.T) {
	f := newFake(t, false)
	f.Handle("Get", func(p *peer, m *dbus.Message) {
		time.Sleep(time.Second)
		p.Answer(m)
	})
	m := f.connect()
	m.patience = 1700 * time.Millisecond
	_, err := m.Path(c1)
	must(t, err)
	start := time.Now()
	_, err = m.Path(c1)
	wantError(t, err, os.ErrDeadlineExceeded, "find the place of unit husk-c1.scope")
	if d := time.Since(start); d >= time.Second {
		t.Errorf("took %v", d)
	}
	if m.patience > 0 {
		t.Errorf("%v are left", m.patience)
	}
}

// Nobody accepts, and the queue is full: connect itself would wait for ever.
func TestMuteQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	must(t, unix.Listen(fd, 0))
	start := time.Now()
	for range 3 {
		_, err = connect([]address{{path, false}}, 100*time.Millisecond)
		wantError(t, err, os.ErrDeadlineExceeded, path)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
	_, err = connect([]address{{path, false}}, -time.Second)
	wantError(t, err, os.ErrDeadlineExceeded, path)
}

func TestConnectErrors(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/file", nil, 0o600))
	long := dir + "/" + strings.Repeat("x", 120)
	start := time.Now()
	_, err := connect([]address{{dir + "/none", false}, {dir + "/file", true}, {long, true}}, 200*time.Millisecond)
	wantError(t, err, unix.ENOENT, dir+"/none", "connect to systemd")
	wantError(t, err, unix.ECONNREFUSED, dir+"/file")
	wantError(t, err, unix.EINVAL, long)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	f := newFake(t, false)
	m, err := connect([]address{{dir + "/none", false}, f.addr}, time.Second)
	must(t, err)
	m.Close()
	for _, auth := range []string{"REJECTED EXTERNAL\r\n", "DATA\r\nERROR\r\n", "OK\r\n", strings.Repeat("x", 10000), "\r\n"} {
		f := newFake(t, false)
		f.Auth = auth
		if _, err := connect([]address{f.addr}, time.Second); err == nil {
			t.Errorf("%q lets us in", auth)
		}
	}
}

// systemd's own socket refuses for a moment; the message bus beside it is no way then.
func TestRefused(t *testing.T) {
	f := newFake(t, false)
	other := newFake(t, true)
	f.addr.path += "2"
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: f.addr.path}))
	time.AfterFunc(100*time.Millisecond, func() {
		file := os.NewFile(uintptr(fd), "")
		defer file.Close()
		if err := unix.Listen(fd, 5); err != nil {
			t.Error(err)
		}
		l, err := net.FileListener(file)
		if err != nil {
			t.Error(err)
			return
		}
		f.Serve(l)
	})
	m, err := connect([]address{f.addr, other.addr}, 5*time.Second)
	must(t, err)
	defer m.Close()
	if m.bus.address != f.addr {
		t.Errorf("connected to %v", m.bus.address)
	}
}

func TestErrorReply(t *testing.T) {
	for name, errno := range map[string]syscall.Errno{
		"org.freedesktop.DBus.Error.AccessDenied":         unix.EACCES,
		"org.freedesktop.DBus.Error.InvalidArgs":          unix.EINVAL,
		"org.freedesktop.DBus.Error.PropertyReadOnly":     unix.EROFS,
		"org.freedesktop.DBus.Error.UnixProcessIdUnknown": unix.ESRCH,
		"System.Error.ENOSPC":                             unix.ENOSPC,
		"org.freedesktop.Unheard":                         0,
	} {
		f := newFake(t, false)
		f.Handle("StartTransientUnit", func(p *peer, m *dbus.Message) { p.Fail(m, name, "the reason") })
		_, err := f.connect().Start(c1, 1, nil)
		wantError(t, err, nil, "start unit husk-c1.scope: ", "the reason", name)
		if errno != 0 {
			wantError(t, err, errno)
		}
		f.called("Get", "StartTransientUnit") // nothing of ours to be stopped
	}
}

func TestJobFails(t *testing.T) {
	for _, result := range []string{"failed", "timeout", "canceled", "dependency", ""} {
		f := newFake(t, false)
		f.Handle("StartTransientUnit", func(p *peer, m *dbus.Message) {
			p.Add(m)
			p.Reply(m, dbus.ObjectPath(job42))
			p.Removed(job42, c1.Name, result)
		})
		_, err := f.connect().Start(c1, 1, nil)
		wantError(t, err, nil, "start unit husk-c1.scope: ", `"`+result+`"`)
		if e, ok := errors.AsType[*JobError](err); !ok || e.Result != result {
			t.Errorf("no JobError: %v", err)
		}
		f.called("Get", "StartTransientUnit", "StopUnit", "ResetFailedUnit")
		if len(f.Units) > 0 {
			t.Error("the unit is left")
		}
	}
}

func TestUnitExists(t *testing.T) {
	f := newFake(t, false)
	f.Units[c1.Name] = &fakeUnit{}
	_, err := f.connect().Start(c1, 1, nil)
	wantError(t, err, unix.EEXIST, "start unit husk-c1.scope", "there is a unit", "cgroupsPath", "systemctl stop")
	f.called("Get", "StartTransientUnit", "ResetFailedUnit", "StartTransientUnit")
	if f.Units[c1.Name] == nil {
		t.Error("somebody else's unit was stopped")
	}
}

func TestFailedUnitIsReplaced(t *testing.T) {
	f := newFake(t, false)
	f.Failed = []string{c1.Name}
	_, err := f.connect().Start(c1, 1, nil)
	must(t, err)
	f.called("Get", "StartTransientUnit", "ResetFailedUnit", "StartTransientUnit", "Get")
}

// systemd goes away once: before the request arrives, after it has made the unit, and
// after it has said so.
func TestDisconnect(t *testing.T) {
	for when, want := range map[string][]string{
		"before": {"Get", "StartTransientUnit", "Get", "GetUnitByPID", "StartTransientUnit", "Get"},
		"made":   {"Get", "StartTransientUnit", "Get", "GetUnitByPID", "Get", "Get"},
		"queued": {"Get", "StartTransientUnit", "Get", "Get", "Get"},
	} {
		t.Run(when, func(t *testing.T) {
			f := newFake(t, false)
			var once atomic.Bool
			f.Handle("StartTransientUnit", func(p *peer, m *dbus.Message) {
				if once.Swap(true) {
					p.Answer(m)
					return
				}
				if when != "before" {
					p.Add(m)
				}
				if when == "queued" {
					p.Reply(m, dbus.ObjectPath(job42))
				}
				p.Write([]byte{'l', 4, 0, 1}) // in the middle of a message
				p.Conn.Close()
			})
			group, err := f.connect().Start(c1, 4711, nil)
			must(t, err)
			if group != "/system.slice/husk-c1.scope" {
				t.Error(group)
			}
			f.called(want...)
		})
	}
}

// The unit of that name that is found after the connection was lost is not ours.
func TestDisconnectForeign(t *testing.T) {
	f := newFake(t, false)
	f.Units[c1.Name] = &fakeUnit{PID: 1}
	var once atomic.Bool
	f.Handle("StartTransientUnit", func(p *peer, m *dbus.Message) {
		if !once.Swap(true) {
			p.Conn.Close()
			return
		}
		p.Answer(m)
	})
	_, err := f.connect().Start(c1, 4711, nil)
	wantError(t, err, unix.EEXIST, c1.Name)
	if f.Units[c1.Name] == nil {
		t.Error("somebody else's unit was stopped")
	}
}

func TestDisconnectForGood(t *testing.T) {
	f := newFake(t, false)
	f.Handle("StartTransientUnit", func(p *peer, m *dbus.Message) { p.Conn.Close() })
	_, err := f.connect().Start(c1, 4711, nil)
	wantError(t, err, unix.ECONNRESET, "start unit husk-c1.scope", f.addr.path)
	one := []string{"StartTransientUnit", "Get", "GetUnitByPID"}
	f.called(slices.Concat([]string{"Get"}, one, one, one, one[:1])...)
}

// After the connection broke between operations, the next one makes a new one.
func TestReconnect(t *testing.T) {
	f := newFake(t, false)
	m := f.connect()
	_, err := m.Start(c1, 1, nil)
	must(t, err)
	f.Handle("SetUnitProperties", func(p *peer, q *dbus.Message) {
		f.Handle("SetUnitProperties", nil)
		p.Conn.Close()
	})
	must(t, m.Set(c1, []Property{{Name: "TasksMax", Value: uint64(7)}}))
	if got := f.Units[c1.Name].Props["TasksMax"].Value(); got != uint64(7) {
		t.Error(got)
	}
	f.Handle("StopUnit", func(p *peer, q *dbus.Message) { p.Conn.Close() })
	wantError(t, m.Stop(c1), unix.ECONNRESET, "stop unit husk-c1.scope")
	f.Handle("StopUnit", nil)
	must(t, m.Stop(c1))
}

func TestSet(t *testing.T) {
	f := newFake(t, false)
	m := f.connect()
	must(t, m.Set(c1, nil))
	must(t, m.Set(c1, []Property{{Name: "New", Value: true, since: 999}, {Name: "Fixed", Value: true, fixed: true}}))
	f.called("Get")
	wantError(t, m.Set(c1, []Property{{Name: "TasksMax", Value: uint64(7)}}), unix.ENOENT, "set properties of unit husk-c1.scope", "not loaded")
}

func TestAttach(t *testing.T) {
	f := newFake(t, false)
	m := f.connect()
	wantError(t, m.Attach(c1, "", 7), unix.ENOENT, "move a process into unit husk-c1.scope")
	f.Units[c1.Name] = &fakeUnit{}
	must(t, m.Attach(c1, "/x", 7))
	if f.Units[c1.Name].PID != 7 {
		t.Error("the process is not there")
	}
}

func TestStop(t *testing.T) {
	f := newFake(t, false)
	m := f.connect()
	must(t, m.Stop(c1)) // gone
	f.Units[c1.Name] = &fakeUnit{}
	must(t, m.Stop(c1))
	f.called("StopUnit", "StopUnit", "ResetFailedUnit")
	f.Handle("StopUnit", func(p *peer, q *dbus.Message) {
		p.Reply(q, dbus.ObjectPath(job42))
		p.Removed(job42, c1.Name, "canceled")
	})
	wantError(t, m.Stop(c1), unix.ECANCELED, "stop unit husk-c1.scope")
	f.Handle("StopUnit", func(p *peer, q *dbus.Message) { p.Fail(q, "org.freedesktop.DBus.Error.AccessDenied", "no") })
	wantError(t, m.Stop(c1), unix.EACCES, "stop unit husk-c1.scope")
}

func TestPath(t *testing.T) {
	f := newFake(t, false)
	m := f.connect()
	path, err := m.Path(Unit{Slice: "a-b.slice", Name: "husk-c1.scope"})
	must(t, err)
	if want := "/user.slice/user-7.slice/user@7.service/a.slice/a-b.slice/husk-c1.scope"; path != want {
		t.Error(path)
	}
	for _, root := range []string{"/", ""} {
		f.Handle("Get", func(p *peer, m *dbus.Message) { p.Reply(m, dbus.MakeVariant(root)) })
		path, err = m.Path(c1)
		must(t, err)
		if path != "/system.slice/husk-c1.scope" {
			t.Error(path)
		}
	}
	for _, bad := range []any{"/..", "/../x", "x", uint32(7), []string{"/x"}} {
		f.Handle("Get", func(p *peer, m *dbus.Message) { p.Reply(m, dbus.MakeVariant(bad)) })
		if path, err := m.Path(c1); err == nil {
			t.Errorf("%v taken for %q", bad, path)
		} else {
			wantError(t, err, nil, c1.Name)
		}
	}
}

func TestVersion(t *testing.T) {
	for text, want := range map[string]int{"252.38-1~deb12u1": 252, "v255": 255, "260~rc1": 260, "247": 247, "": 0, "x": 0} {
		f := newFake(t, false)
		f.Handle("Get", func(p *peer, m *dbus.Message) { p.Reply(m, dbus.MakeVariant(text)) })
		m := f.connect()
		m.bus.until(time.Now().Add(time.Second))
		if err := m.know(); m.version != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", text, m.version, err)
		}
	}
}

// Whatever comes instead of an answer ends in an error, soon.
func TestHostile(t *testing.T) {
	for name, b := range map[string]string{
		"big endian":   "B\x02\x00\x01" + strings.Repeat("\x00", 12),
		"version":      "l\x02\x00\x07" + strings.Repeat("\x00", 12),
		"long header":  "l\x02\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\xff\xff\xff\xff",
		"long body":    "l\x02\x00\x01\xff\xff\xff\xff\x01\x00\x00\x00\x00\x00\x00\x00",
		"long string":  "l\x02\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x10\x00\x00\x00\x01\x01o\x00\xff\xff\xff\xff/\x00\x00\x00\x00\x00\x00\x00",
		"noise":        strings.Repeat("\xff", 100),
		"wrong answer": "",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, false)
			f.Handle("StartTransientUnit", func(p *peer, m *dbus.Message) {
				if b == "" {
					p.Reply(m, uint32(1))
					return
				}
				p.Write([]byte(b))
			})
			m := f.connect()
			m.patience, m.undo = 300*time.Millisecond, 100*time.Millisecond
			_, err := m.Start(c1, 1, nil)
			wantError(t, err, nil, "start unit husk-c1.scope", "malformed")
			if name == "wrong answer" {
				f.called("Get", "StartTransientUnit", "StopUnit", "ResetFailedUnit")
			}
		})
	}
}
