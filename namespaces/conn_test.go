package namespaces

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pair(t testing.TB) (a, b *Conn) {
	t.Helper()
	a, b = must2(Pair())
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// inode identifies what a descriptor refers to.
func inode(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

func pipes(t testing.TB, n int) (fds []int) {
	for range n {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		fds = append(fds, p[:]...)
	}
	t.Cleanup(func() { closeAll(fds) })
	return fds
}

// Messages of all sizes around the chunk length, to a real child and back: the
// child's end works in raw system calls.
func TestMessages(t *testing.T) {
	ch := launch(t, &Config{}, "echo")
	fds := pipes(t, 16)
	for i, size := range []int{0, 1, 100, chunkLen - 1, chunkLen, chunkLen + 1, 2 * chunkLen, 1 << 20} {
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = byte(rand.Uint32())
		}
		kind := byte(i + 1)
		sent := make(chan error)
		go func() { sent <- ch.conn.Send(kind, payload, fds...) }()
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		got, back, rights, err := ch.conn.Recv(soon())
		if err != nil || got != kind || !bytes.Equal(back, payload) {
			t.Fatalf("%d bytes: kind %d, %d bytes, %v", size, got, len(back), err)
		}
		if len(rights) != len(fds) {
			t.Fatalf("%d descriptors, want %d", len(rights), len(fds))
		}
		for i, fd := range rights {
			if inode(fd) != inode(fds[i]) {
				t.Errorf("descriptor %d refers to something else", i)
			}
			if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor %d is not close-on-exec", i)
			}
		}
		closeAll(rights)
	}
}

func TestMostDescriptors(t *testing.T) {
	a, b := pair(t)
	fds := make([]int, maxFDs+1)
	if err := a.Send(1, nil, fds...); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("%d descriptors: %v", len(fds), err)
	}
	if err := a.Send(1, nil, fds[:maxFDs]...); err != nil {
		t.Fatal(err)
	}
	_, _, rights, err := b.Recv(soon())
	if err != nil || len(rights) != maxFDs {
		t.Errorf("%d descriptors, %v", len(rights), err)
	}
	closeAll(rights)
	if err := a.Send(1, make([]byte, maxMessage+1)); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("too long: %v", err)
	}
}

func TestDeadline(t *testing.T) {
	for _, raw := range []bool{false, true} {
		a, _ := pair(t)
		a.raw = raw
		for _, wait := range []time.Duration{-time.Hour, 0, 30 * time.Millisecond} {
			start := time.Now()
			_, _, _, err := a.Recv(start.Add(wait))
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v: %v", wait, err)
			}
			if took := time.Since(start); took < wait || took > wait.Abs()+10*time.Second {
				t.Errorf("%v took %v", wait, took)
			}
		}
	}
}

// A message that stops in the middle.
func TestDeadlineInside(t *testing.T) {
	a, b := pair(t)
	unix.Write(a.fd, []byte{1, flagMore, 'x'})
	if _, _, _, err := b.Recv(time.Now().Add(20 * time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestPeerGone(t *testing.T) {
	a, b := pair(t)
	b.Send(5, []byte("last"))
	b.Close()
	b.Close()
	if err := a.Send(1, nil); !errors.Is(err, unix.EPIPE) {
		t.Errorf("Send: %v", err)
	}
	if kind, payload, _, err := a.Recv(time.Time{}); kind != 5 || string(payload) != "last" || err != nil {
		t.Errorf("%d %q %v", kind, payload, err)
	}
	if _, _, _, err := a.Recv(time.Time{}); err != io.EOF {
		t.Errorf("%v, want EOF", err)
	}
}

// The child fails while messages to it are still queued: the kernel reports a
// reset connection first, and only then the child's reason.
func TestLastWords(t *testing.T) {
	ch := launch(t, &Config{}, "die")
	for range 3 {
		if err := ch.conn.Send(1, make([]byte, 10000)); err != nil {
			t.Fatal(err)
		}
	}
	if !ended(int(ch.FD.Fd())) {
		t.Fatal("still there")
	}
	kind, payload, _, err := ch.conn.Recv(soon())
	if err != nil || kind != KindError {
		t.Fatalf("%#x %v", kind, err)
	}
	step, errno, text, err := DecodeError(payload)
	if step != 7 || errno != unix.ENOTDIR || text != "last words" || err != nil {
		t.Errorf("%d %v %q %v", step, errno, text, err)
	}
	if _, _, _, err := ch.conn.Recv(soon()); err != io.EOF {
		t.Errorf("%v, want EOF", err)
	}
}

// Nobody reads: Send neither blocks for ever nor loses what it has sent.
func TestFullQueue(t *testing.T) {
	a, b := pair(t)
	sent := make(chan error)
	go func() { sent <- a.Send(1, make([]byte, 4<<20)) }()
	select {
	case err := <-sent:
		t.Fatalf("4 MiB fit into the queue? %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if _, payload, _, err := b.Recv(soon()); err != nil || len(payload) != 4<<20 {
		t.Errorf("%d bytes, %v", len(payload), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestLostDescriptors(t *testing.T) {
	a, b := pair(t)
	fds := pipes(t, 10)
	if err := a.Send(1, nil, fds...); err != nil {
		t.Fatal(err)
	}
	var was unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &was)
	low := unix.Rlimit{Cur: uint64(fds[len(fds)-1] + 5), Max: was.Max}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &low, nil); err != nil {
		t.Fatal(err)
	}
	defer unix.Prlimit(0, unix.RLIMIT_NOFILE, &was, nil)
	if _, _, _, err := b.Recv(soon()); !errors.Is(err, unix.EMFILE) {
		t.Errorf("%v, want EMFILE", err)
	}
}

func TestMalformed(t *testing.T) {
	null := pipes(t, 1)
	for name, packets := range map[string][][]byte{
		"short":        {{1}},
		"flags":        {{1, 0x80}},
		"kind changes": {{1, flagMore, 'a'}, {2, 0, 'b'}},
		"rights later": {{1, flagMore, 'a'}, {1, 0, 'b'}},
		"no progress":  {{1, flagMore, 'a'}, {1, flagMore}},
		"oversized":    {bytes.Repeat([]byte{1, 0}, chunkLen)},
	} {
		a, b := pair(t)
		before := len(openAny())
		for i, p := range packets {
			var control []byte
			if name == "rights later" && i == 1 || name == "short" {
				control = unix.UnixRights(null...)
			}
			if err := unix.Sendmsg(a.fd, p, control, nil, 0); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, _, err := b.Recv(soon()); !errors.Is(err, unix.EBADMSG) {
			t.Errorf("%s: %v", name, err)
		}
		if after := len(openAny()); after != before {
			t.Errorf("%s: %d descriptors leaked", name, after-before)
		}
	}
	a, b := pair(t)
	unix.RawSyscall6(unix.SYS_SENDTO, uintptr(a.fd), 0, 0, 0, 0, 0)
	if _, _, _, err := b.Recv(soon()); err != io.EOF {
		t.Errorf("empty packet: %v", err)
	}
}

func openAny() (fds []int) {
	for fd := range 256 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}

func TestErrorPayload(t *testing.T) {
	step, errno, text, err := DecodeError(EncodeError(3, unix.EPERM, "mount proc"))
	if step != 3 || errno != unix.EPERM || text != "mount proc" || err != nil {
		t.Errorf("%d %v %q %v", step, errno, text, err)
	}
	if _, _, _, err := DecodeError(make([]byte, 7)); err == nil {
		t.Error("short payload accepted")
	}
	if _, _, text, _ := DecodeError(EncodeError(0, 0, strings.Repeat("x", 1<<20))); len(text) > chunkLen {
		t.Errorf("text of %d bytes", len(text))
	}
}

// FuzzRecv feeds packets that a hostile peer might send. The input is cut into
// packets at its length bytes; bit 7 of a length adds a descriptor.
func FuzzRecv(f *testing.F) {
	f.Add([]byte{3, 1, 0, 'x'})
	f.Add([]byte{3, 1, 1, 'x', 3, 1, 0, 'y'})
	f.Add([]byte{0x83, 1, 1, 'x', 0x82, 1, 0})
	f.Add([]byte{1, 1, 0, 2, 0xff, 0})
	null, err := os.Open("/dev/null")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := must2(Pair())
		before := len(openAny())
		var sent int
		for len(data) > 0 && sent < 64 {
			n := min(int(data[0]&0x7f), len(data)-1)
			var control []byte
			if data[0]&0x80 != 0 {
				control = unix.UnixRights(int(null.Fd()))
			}
			if err := unix.Sendmsg(a.fd, data[1:1+n], control, nil, unix.MSG_DONTWAIT); err != nil {
				break
			}
			data = data[1+n:]
			sent++
		}
		unix.Shutdown(a.fd, unix.SHUT_WR)
		for {
			kind, payload, fds, err := b.Recv(time.Now().Add(time.Second))
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("Recv waits for a peer that is done")
			}
			closeAll(fds)
			if err != nil {
				if !errors.Is(err, unix.EBADMSG) && err != io.EOF {
					t.Fatal(err)
				}
				if err == io.EOF {
					break
				}
				continue
			}
			if kind == KindError {
				_, _, _, _ = DecodeError(payload)
			}
		}
		if after := len(openAny()); after != before {
			t.Fatalf("%d descriptors leaked", after-before)
		}
		a.Close()
		b.Close()
	})
}

// What came before somebody looked counts, though the deadline has passed.
func TestRecvLate(t *testing.T) {
	a, b := pair(t)
	if err := b.Send(7, nil); err != nil {
		t.Fatal(err)
	}
	late := time.Now().Add(-time.Second)
	if err := a.wait(unix.POLLIN, late); err != nil {
		t.Errorf("with a message: %v", err)
	}
	if kind, _, _, err := a.Recv(late); kind != 7 || err != nil {
		t.Errorf("kind %d, %v", kind, err)
	}
	if _, _, _, err := a.Recv(late); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("without one: %v", err)
	}
}
