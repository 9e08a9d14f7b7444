package systemd

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/huskrun/husk/cgroups/systemd/systemdtest"
)

type (
	peer     = systemdtest.Peer
	fakeUnit = systemdtest.Unit
)

const job42 = systemdtest.Job

// fake is a systemd that listens at an address.
type fake struct {
	*systemdtest.Fake
	t    *testing.T
	addr address
}

func newFake(t *testing.T, bus bool) *fake {
	f := &fake{t: t, addr: address{filepath.Join(t.TempDir(), "private"), bus}}
	f.Fake = systemdtest.New(t, f.addr.path, bus)
	f.Root = "/user.slice/user-7.slice/user@7.service"
	f.Listen()
	return f
}

// connect gives a manager whose patience fits a test.
func (f *fake) connect() *Manager {
	f.t.Helper()
	m, err := connect([]address{f.addr}, 5*time.Second)
	must(f.t, err)
	m.patience, m.undo = 5*time.Second, time.Second
	f.t.Cleanup(m.Close)
	return m
}

func (f *fake) called(want ...string) {
	f.t.Helper()
	if got := f.Calls(); !slices.Equal(got, want) {
		f.t.Errorf("calls\n%q, want\n%q", got, want)
	}
}
