package seccomp

import (
	"testing"

	"golang.org/x/sys/unix"
)

// What is watched asks about errors, and about them alone; the answer is the filter's own.
func TestDenials(t *testing.T) {
	f := &Filter{Flags: flagSpecAllow, BPF: program(
		[4]uint32{opLoad, 0, 0, 0},
		[4]uint32{opEqual, 0, 1, 1}, [4]uint32{opReturn, 0, 0, retErrno | uint32(unix.EACCES)},
		[4]uint32{opEqual, 0, 1, 2}, [4]uint32{opReturn, 0, 0, retErrno | uint32(unix.ENOSYS)},
		[4]uint32{opEqual, 0, 1, 3}, [4]uint32{opReturn, 0, 0, retErrno},
		[4]uint32{opEqual, 0, 1, 4}, [4]uint32{opReturn, 0, 0, retKillProcess},
		[4]uint32{opReturn, 0, 0, retAllow},
	)}
	d := &Denials{}
	w := d.Watch(f)
	if d.Ended() == nil {
		t.Skip("this test is under a filter itself")
	}
	for number, want := range []uint32{retAllow, retNotify, retErrno, retErrno, retKillProcess, retAllow} {
		if got := w.judge(auditArch(), uint32(number), nil); got != want {
			t.Errorf("call %d: %#x, want %#x", number, got, want)
		}
	}
	if f.judge(auditArch(), 1, nil) != retErrno || !w.Listener() || f.Listener() {
		t.Error("the filter itself was changed")
	}
	for range 3 {
		if a := d.deny(&notification{arch: auditArch(), nr: 1}); a.error != -int32(unix.EACCES) || a.flags != 0 {
			t.Errorf("%+v", a)
		}
	}
	// Whatever comes, it is not let through, and does not fill our memory.
	for number := int32(10); number < maxSeen+20; number++ {
		if a := d.deny(&notification{arch: 7, nr: number}); a.error == 0 || a.flags != 0 {
			t.Fatalf("%+v", a)
		}
	}
	list, ok := d.List(namer{})
	if !ok || len(list) != maxSeen || list[len(list)-1].Call == "" {
		t.Errorf("%d denials", len(list))
	}
	if list, ok := (&Denials{counts: map[numbered]uint64{{auditArch(), 39}: 2, {auditArch(), 999}: 1}}).List(namer{}); !ok || len(list) != 2 ||
		list[0] != (Denial{"999", 1}) || list[1] != (Denial{"getpid", 2}) {
		t.Errorf("%v", list)
	}
	// Somebody else's listener stays.
	if f.Flags |= flagNewListener; (&Denials{}).Watch(f) != f {
		t.Error("a filter with a listener is watched")
	}
}
