package runtime

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Traffic is what has passed the interfaces of a network namespace, but lo.
type Traffic struct{ Received, Sent uint64 }

// traffic is a network namespace whose interfaces are looked at. To be able to do so when
// its last process has gone, the kernel keeps the namespace while this file is open.
type traffic struct {
	dev    *os.File
	before map[string]Traffic // of devices that were moved there, for one
}

// watchTraffic begins with that of a process; nil if it cannot be seen.
func watchTraffic(pid int) *traffic {
	fd, err := openPath("/proc/"+strconv.Itoa(pid)+"/net/dev", unix.O_RDONLY)
	if err != nil {
		return nil
	}
	t := &traffic{dev: os.NewFile(uintptr(fd), "net/dev")}
	if t.before = t.read(); t.before == nil {
		t.close()
		return nil
	}
	return t
}

func (t *traffic) close() {
	if t != nil {
		_ = t.dev.Close()
	}
}

// maxDevices is more than the lines of all devices that anybody has.
const maxDevices = 1 << 20

// read is what each interface has counted, nil if that cannot be told.
func (t *traffic) read() map[string]Traffic {
	text := make([]byte, maxDevices)
	n, err := t.dev.ReadAt(text, 0)
	if n == 0 || n == len(text) || err == nil {
		return nil
	}
	return parseDevices(string(text[:n]))
}

// parseDevices reads what two lines of titles precede: a name, then eight numbers about
// what was received, of which the first is that of bytes, and eight about what was sent.
func parseDevices(text string) map[string]Traffic {
	all := map[string]Traffic{}
	for line := range strings.Lines(text) {
		name, numbers, ok := strings.Cut(line, ":")
		field := strings.Fields(numbers)
		if name = strings.TrimSpace(name); !ok || len(field) < 9 || name == "lo" {
			continue
		}
		received, err := strconv.ParseUint(field[0], 10, 64)
		sent, err2 := strconv.ParseUint(field[8], 10, 64)
		if err != nil || err2 != nil {
			return nil
		}
		all[name] = Traffic{received, sent}
	}
	return all
}

// end returns what has passed since, and lets go of the namespace.
func (t *traffic) end() *Traffic {
	if t == nil {
		return nil
	}
	defer t.close()
	now := t.read()
	if now == nil {
		return nil
	}
	sum := &Traffic{}
	for name, n := range now {
		sum.Received += n.Received - t.before[name].Received
		sum.Sent += n.Sent - t.before[name].Sent
	}
	return sum
}
