package systemd

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/huskrun/husk/cgroups"
	"golang.org/x/sys/unix"
)

// Property is one setting of a unit: a name of systemd.resource-control(5), and a value
// of one of the types that systemd's properties have.
type Property struct {
	Name  string
	Value any
	since int  // the first systemd that knows it
	fixed bool // once the unit is started
}

func (p Property) String() string { return fmt.Sprintf("%s=%s", p.Name, format(p.Value)) }

// format shows a value in short.
func format(v any) string {
	switch v := v.(type) {
	case variant:
		return format(v.value)
	case array:
		return "[" + list(v.items) + "]"
	case tuple:
		return "(" + list(v) + ")"
	case uint64:
		if v == infinity {
			return "infinity"
		}
	}
	return fmt.Sprint(v)
}

func list(values []any) string {
	text := make([]string, len(values))
	for i, v := range values {
		text[i] = format(v)
	}
	return strings.Join(text, ", ")
}

// pairs is the argument a(sv).
func pairs(props []Property) array {
	a := array{item: "(sv)"}
	for _, p := range props {
		a.items = append(a.items, tuple{p.Name, variant{p.Value}})
	}
	return a
}

const infinity uint64 = math.MaxUint64

// words are systemd's for what is written to the files of cgroup v2. What has none
// (cpu.max.burst, hugetlb, rdma, misc) and what a conversion does not take is written
// to the files only; systemd leaves those alone.
var words = []struct {
	file, name string
	since      int
	conv       func(value string) (any, bool)
	fixed      bool // systemd does not change it later
}{
	{"memory.max", "MemoryMax", 231, size, false},
	{"memory.high", "MemoryHigh", 231, size, false},
	{"memory.low", "MemoryLow", 231, size, false},
	{"memory.min", "MemoryMin", 240, size, false},
	{"memory.swap.max", "MemorySwapMax", 232, size, false},
	{"memory.zswap.max", "MemoryZSwapMax", 253, size, false},
	{"memory.oom.group", "OOMPolicy", 253, oomPolicy, true},
	{"cpu.idle", "CPUWeight", 252, idle, false},
	{"cpu.weight", "CPUWeight", 232, weight, false},
	{"cpu.max", "CPUQuotaPerSecUSec", 213, quota, false},
	{"cpu.max", "CPUQuotaPeriodUSec", 242, period, false},
	{"cpuset.cpus", "AllowedCPUs", 244, mask, false},
	{"cpuset.mems", "AllowedMemoryNodes", 244, mask, false},
	{"pids.max", "TasksMax", 227, tasks, false},
	{"io.weight", "IOWeight", 230, ioWeight, false},
	{"io.weight", "IODeviceWeight", 230, ioDeviceWeight, false},
	{"io.max", "IOReadBandwidthMax", 230, func(v string) (any, bool) { return ioMax(v, "rbps") }, false},
	{"io.max", "IOWriteBandwidthMax", 230, func(v string) (any, bool) { return ioMax(v, "wbps") }, false},
	{"io.max", "IOReadIOPSMax", 230, func(v string) (any, bool) { return ioMax(v, "riops") }, false},
	{"io.max", "IOWriteIOPSMax", 230, func(v string) (any, bool) { return ioMax(v, "wiops") }, false},
}

// Properties says the limits in systemd's words, as far as it has them: what systemd is
// not told it may undo at the next daemon-reload. A later limit wins.
func Properties(limits []cgroups.Limit) []Property {
	var all []Property
	for _, l := range limits {
		value := l.Value
		if l.KeepFirst {
			_, rest, _ := strings.Cut(value, " ")
			value = "- " + rest
		}
		for _, w := range words {
			v := value
			if w.file == l.AltFile {
				v = l.AltValue
			} else if w.file != l.File {
				continue
			}
			if v, ok := w.conv(strings.TrimSpace(v)); ok {
				all = add(all, Property{w.name, v, w.since, w.fixed})
			}
		}
	}
	return all
}

// Fixed are those properties that only Start can set.
func Fixed(limits []cgroups.Limit) []Property {
	return slices.DeleteFunc(Properties(limits), func(p Property) bool { return !p.fixed })
}

// add replaces a property of the same name, except that lists of devices grow.
func add(all []Property, p Property) []Property {
	for i, old := range all {
		if old.Name != p.Name {
			continue
		}
		a, ok := old.Value.(array)
		if b, _ := p.Value.(array); ok && b.item != "y" {
			p.Value = array{a.item, append(a.items, b.items...)}
		}
		all[i] = p
		return all
	}
	return append(all, p)
}

// Complete gives limits for a group in use what Properties cannot know: the half of
// cpu.max that an update leaves as it is, and the weight of a group that stops being
// idle. current is what the group's files hold.
func Complete(limits []cgroups.Limit, current map[string]string) []cgroups.Limit {
	var all []cgroups.Limit
	for _, l := range limits {
		old, oldPeriod, _ := strings.Cut(strings.TrimSpace(current["cpu.max"]), " ")
		first, newPeriod, _ := strings.Cut(l.Value, " ")
		switch {
		case l.File == "cpu.max" && l.KeepFirst && old != "":
			l.Value, l.KeepFirst = old+" "+newPeriod, false
		case l.File == "cpu.max" && newPeriod == "" && oldPeriod != "":
			l.Value = first + " " + oldPeriod
		case l.File == "cpu.idle" && l.Value == "0" && strings.TrimSpace(current["cpu.idle"]) == "1":
			all = append(all, cgroups.Limit{Field: l.Field, File: "cpu.weight", Value: "100"})
		}
		all = append(all, l)
	}
	return all
}

// size takes what the kernel takes: a number with a suffix, or "max".
func size(s string) (any, bool) {
	if s == "max" {
		return infinity, true
	}
	shift := 0
	if s != "" {
		if i := strings.IndexByte("KMGTPE", s[len(s)-1]&^0x20); i >= 0 {
			s, shift = s[:len(s)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(s, 0, 64)
	return n << shift, err == nil && n<<shift>>shift == n
}

// number is a decimal number within bounds.
func number(s string, low, high uint64) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n >= low && n <= high
}

// oomPolicy: systemd ends the unit then too, whose processes are all dead.
func oomPolicy(s string) (any, bool) {
	if s == "1" {
		return "kill", true
	}
	return "continue", s == "0"
}

func weight(s string) (any, bool) { return number(s, 1, 10000) }

// idle is systemd's weight 0; that it ends is said by a weight.
func idle(s string) (any, bool) { return uint64(0), s == "1" }

// tasks: systemd refuses a limit of 0; the container's init is one, with 1 it cannot
// make another either. The file gets its 0 afterwards.
func tasks(s string) (any, bool) {
	if s == "max" {
		return infinity, true
	}
	n, ok := number(s, 0, infinity)
	return max(n, 1), ok
}

// tenMilliseconds, 1% of a CPU, is what systemd counts in.
const tenMilliseconds = 10000

// quota is the time per second, rounded up so that the file can get the exact one.
func quota(s string) (any, bool) {
	first, rest, _ := strings.Cut(s, " ")
	if first == "max" {
		return infinity, true
	}
	q, ok := number(first, 1, math.MaxInt64)
	p, hasPeriod := number(rest, 1, 1000000)
	if !ok || !hasPeriod && rest != "" {
		return nil, false
	}
	if rest == "" {
		p = 100000
	}
	hi, lo := bits.Mul64(q, 1000000)
	if hi >= p {
		return infinity, true
	}
	perSec, rem := bits.Div64(hi, lo, p)
	if up := (tenMilliseconds - perSec%tenMilliseconds) % tenMilliseconds; up > 0 {
		perSec += up
	} else if rem > 0 {
		perSec += tenMilliseconds
	}
	return perSec, perSec >= tenMilliseconds
}

func period(s string) (any, bool) {
	_, rest, _ := strings.Cut(s, " ")
	return number(rest, 1000, 1000000)
}

// mask makes of "0-3,5" a bit for each, in bytes.
func mask(s string) (any, bool) {
	var bytes []any
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(first, 10, 13)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(last, 10, 13)
		}
		if err != nil || a > b {
			return nil, false
		}
		for n := a; n <= b; n++ {
			for uint64(len(bytes)) <= n/8 {
				bytes = append(bytes, byte(0))
			}
			bytes[n/8] = bytes[n/8].(byte) | 1<<(n%8)
		}
	}
	return array{"y", bytes}, true
}

// ioWeight is that for all devices: "100" or "default 100".
func ioWeight(s string) (any, bool) {
	n, ok := number(strings.TrimPrefix(s, "default "), 1, 10000)
	return n, ok
}

// ioDeviceWeight is that for one device, "8:0 100".
func ioDeviceWeight(s string) (any, bool) {
	dev, value, _ := strings.Cut(s, " ")
	n, ok := number(value, 1, 10000)
	if !ok {
		return nil, false
	}
	return device(dev, n)
}

// ioMax finds key in "8:0 rbps=1048576 wiops=max".
func ioMax(s, key string) (any, bool) {
	fields := strings.Fields(s)
	for i, f := range fields {
		value, ok := strings.CutPrefix(f, key+"=")
		if !ok || i == 0 {
			continue
		}
		if value == "max" {
			return device(fields[0], infinity)
		}
		if n, ok := number(value, 1, infinity); ok {
			return device(fields[0], n)
		}
	}
	return nil, false
}

// device names it as systemd wants it, by its node, if there is one.
func device(majorMinor string, n uint64) (any, bool) {
	node := devBlock + majorMinor
	if strings.Trim(majorMinor, "0123456789:") != "" || unix.Access(node, unix.F_OK) != nil {
		return nil, false
	}
	return array{"(st)", []any{tuple{node, n}}}, true
}

// devBlock is where udev keeps links named by number; a test has its own.
var devBlock = "/dev/block/"
