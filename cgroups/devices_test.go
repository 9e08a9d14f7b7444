package cgroups

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/huskrun/husk/cgroups/internal/kernfs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// request is what the kernel asks a device program.
type request struct {
	kind         byte
	major, minor uint32
	access       uint32
}

// run interprets a device program, as little of eBPF as such programs use.
func run(t *testing.T, code []instruction, q request) bool {
	t.Helper()
	ctx := [3]uint32{q.access<<16 | map[byte]uint32{'b': devBlock, 'c': devChar}[q.kind], q.major, q.minor}
	var r [11]uint64
	for pc, steps := 0, 0; ; pc, steps = pc+1, steps+1 {
		if pc < 0 || pc >= len(code) || steps > len(code) {
			t.Fatalf("left the program at %d", pc)
		}
		i := code[pc]
		dst, src := i.regs&15, i.regs>>4
		operand := uint64(int64(i.imm))
		if i.op&unix.BPF_X != 0 {
			operand = r[src]
		}
		jump := false
		switch class := i.op & 7; class {
		case unix.BPF_LDX:
			if src != r1 || i.off%4 != 0 || i.off < 0 || i.off > 8 {
				t.Fatalf("bad load %+v", i)
			}
			r[dst] = uint64(ctx[i.off/4])
			if i.op&0x18 == unix.BPF_H {
				r[dst] &= 0xffff
			}
		case unix.BPF_ALU, unix.BPF_ALU64:
			if class == unix.BPF_ALU {
				operand = uint64(uint32(operand))
				r[dst] = uint64(uint32(r[dst]))
			}
			switch i.op & 0xf0 {
			case unix.BPF_MOV:
				r[dst] = operand
			case unix.BPF_AND:
				r[dst] &= operand
			case unix.BPF_OR:
				r[dst] |= operand
			case unix.BPF_LSH:
				r[dst] <<= operand
			case unix.BPF_RSH:
				r[dst] >>= operand
			default:
				t.Fatalf("unknown operation %#x", i.op)
			}
		case unix.BPF_JMP, unix.BPF_JMP32:
			a, b := r[dst], operand
			if class == unix.BPF_JMP32 {
				a, b = uint64(uint32(a)), uint64(uint32(b))
			}
			switch i.op & 0xf0 {
			case unix.BPF_EXIT:
				return r[0] == 1
			case unix.BPF_JA:
				jump = true
			case unix.BPF_JEQ:
				jump = a == b
			case unix.BPF_JNE:
				jump = a != b
			case unix.BPF_JSET:
				jump = a&b != 0
			default:
				t.Fatalf("unknown jump %#x", i.op)
			}
		default:
			t.Fatalf("unknown class %#x", i.op)
		}
		if jump {
			pc += int(i.off)
		}
	}
}

// allowed is the plain reading of the rules: every access on its own, the last
// rule that speaks of it and of the device decides, silence denies.
func allowed(rules []specs.LinuxDeviceCgroup, q request) bool {
	for bit, letter := range map[uint32]string{accRead: "r", accWrite: "w", accMknod: "m"} {
		if q.access&bit == 0 {
			continue
		}
		verdict := false
		for _, d := range rules {
			speaks := (d.Type == "" || d.Type == "a" || d.Type == string(q.kind)) &&
				(d.Major == nil || *d.Major == -1 || uint32(*d.Major) == q.major) &&
				(d.Minor == nil || *d.Minor == -1 || uint32(*d.Minor) == q.minor) &&
				(strings.Contains(d.Access, letter) || d.Access == "" && !d.Allow)
			if speaks {
				verdict = d.Allow
			}
		}
		if !verdict {
			return false
		}
	}
	return true
}

func plainDefaults(t *testing.T) []specs.LinuxDeviceCgroup {
	t.Helper()
	return parseDevices(t, `[{"allow":true,"type":"c","access":"m"},{"allow":true,"type":"b","access":"m"},
		{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"},
		{"allow":true,"type":"c","major":1,"minor":7,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":8,"access":"rwm"},
		{"allow":true,"type":"c","major":1,"minor":9,"access":"rwm"},{"allow":true,"type":"c","major":5,"minor":0,"access":"rwm"},
		{"allow":true,"type":"c","major":5,"minor":2,"access":"rwm"},{"allow":true,"type":"c","major":136,"access":"rwm"},
		{"allow":true,"type":"c","major":10,"minor":200,"access":"rwm"}]`)
}

func parseDevices(t *testing.T, text string) (rules []specs.LinuxDeviceCgroup) {
	t.Helper()
	must(t, json.Unmarshal([]byte(text), &rules))
	return rules
}

// requests are all those that could make a difference to the rules below.
func requests() (all []request) {
	for _, kind := range []byte("bc") {
		for _, major := range []uint32{0, 1, 5, 8, 136, 4095} {
			for _, minor := range []uint32{0, 3, 1<<20 - 1} {
				for access := uint32(1); access < 8; access++ {
					all = append(all, request{kind, major, minor, access})
				}
			}
		}
	}
	return all
}

func TestDevicesAgainstPlainReading(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(n ...int64) *int64 {
		if i := rng.IntN(len(n) + 1); i < len(n) {
			return &n[i]
		}
		return nil
	}
	all, defaults := requests(), plainDefaults(t)
	granted, refused := 0, 0
	for range 500 {
		var rules []specs.LinuxDeviceCgroup
		for range rng.IntN(6) {
			r := specs.LinuxDeviceCgroup{
				Allow:  rng.IntN(2) == 0,
				Type:   []string{"", "a", "b", "c"}[rng.IntN(4)],
				Access: []string{"r", "w", "m", "rw", "rm", "wm", "rwm", "mrw"}[rng.IntN(8)],
			}
			if rng.IntN(3) > 0 {
				r.Major, r.Minor = pick(-1, 1, 5, 8, 4095), pick(-1, 0, 3, 1<<20-1)
			}
			rules = append(rules, r)
			if rng.IntN(2) == 0 { // neighbours of the same sort share code
				r.Major, r.Minor = pick(-1, 1, 5, 8, 136), pick(-1, 0, 3)
				rules = append(rules, r)
			}
		}
		p, err := CompileDevices(rules)
		must(t, err)
		checkReachable(t, p.code)
		plain := append(rules[:len(rules):len(rules)], defaults...)
		for _, q := range all {
			got, want := run(t, p.code, q), allowed(plain, q)
			if got != want {
				t.Fatalf("%s\n%+v: %v, want %v", p, q, got, want)
			}
			if got {
				granted++
			} else {
				refused++
			}
		}
		if p.AllowsAll() && refusesAny(t, p.code, all) {
			t.Fatalf("AllowsAll is wrong: %s", p)
		}
	}
	if granted < 1000 || refused < 1000 {
		t.Errorf("%d granted, %d refused: the test says little", granted, refused)
	}
}

func refusesAny(t *testing.T, code []instruction, all []request) bool {
	t.Helper()
	for _, q := range all {
		if !run(t, code, q) {
			return true
		}
	}
	return false
}

// checkReachable does what the verifier does before anything else.
func checkReachable(t *testing.T, code []instruction) {
	t.Helper()
	reached := make([]bool, len(code))
	reached[0] = true
	for pc, i := range code {
		if !reached[pc] {
			t.Fatalf("instruction %d of %d is unreachable", pc, len(code))
		}
		isJump := i.op&7 == unix.BPF_JMP || i.op&7 == unix.BPF_JMP32
		if isJump && i.op != opExit {
			reached[pc+1+int(i.off)] = true
		}
		if i.op != opExit && i.op != opJump {
			reached[pc+1] = true
		}
	}
}

func TestDeviceRules(t *testing.T) {
	null, disk := request{'c', 1, 3, accRead | accWrite}, request{'b', 8, 0, accRead | accWrite}
	with := func(q request, access uint32) request { q.access = access; return q }
	for _, c := range []struct {
		name, rules string
		q           request
		want        bool
	}{
		{"nothing said", `[]`, disk, false},
		{"defaults", `[]`, null, true},
		{"defaults win over the configuration", `[{"allow":false,"access":"rwm"}]`, null, true},
		{"making a node is no access", `[]`, with(disk, accMknod), true},
		{"node and access", `[]`, with(disk, accMknod|accRead), false},
		{"the host's console", `[]`, request{'c', 5, 1, accRead}, false},
		{"a pty", `[]`, request{'c', 136, 17, accRead | accWrite}, true},
		{"block 1:3 is not null", `[]`, request{'b', 1, 3, accRead}, false},
		{"deny on intersection", `[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","access":"w"}]`, disk, false},
		{"what is left", `[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","access":"w"}]`, with(disk, accRead), true},
		{"allow on subset", `[{"allow":true,"type":"b","access":"r"}]`, disk, false},
		{"two halves", `[{"allow":true,"type":"b","access":"r"},{"allow":true,"type":"b","access":"w"}]`, disk, true},
		{"denied, then allowed again", `[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","access":"w"},{"allow":true,"type":"b","major":8,"access":"w"}]`, disk, true},
		{"a later deny of all", `[{"allow":true,"type":"b","access":"rwm"},{"allow":false}]`, disk, false},
		{"nothing is asked for", `[]`, with(disk, 0), true},
	} {
		p, err := CompileDevices(parseDevices(t, c.rules))
		must(t, err)
		if got := run(t, p.code, c.q); got != c.want {
			t.Errorf("%s: %v\n%s", c.name, got, p)
		}
	}
}

func TestDeviceErrors(t *testing.T) {
	for _, c := range []struct{ rules, field, text string }{
		{`[{"type":"x","access":"r"}]`, "devices/0/type", `"b" for block`},
		{`[{"access":"r"},{"access":"rx"}]`, "devices/1/access", `some of "rwm"`},
		{`[{"allow":true}]`, "devices/0/access", `some of "rwm"`},
		{`[{"major":-2,"access":"r"}]`, "devices/0/major", "leave it out"},
		{`[{"minor":1048576,"access":"r"}]`, "devices/0/minor", "leave it out"},
	} {
		p, err := CompileDevices(parseDevices(t, c.rules))
		wantError(t, err, nil, pointer+c.field+": ", c.text)
		if p.code != nil {
			t.Errorf("%s: a program despite the error", c.rules)
		}
	}
	_, err := CompileDevices(parseDevices(t, `[{"type":"x","major":-7,"access":"?"},{"access":"q"}]`))
	wantError(t, err, nil, "devices/0/type", "devices/0/major", "devices/0/access", "devices/1/access")
}

func TestProgramString(t *testing.T) {
	p, err := CompileDevices(parseDevices(t, `[{"allow":false},{"allow":true,"type":"b","major":8,"minor":1,"access":"mr"}]`))
	must(t, err)
	if got := p.String(); !strings.HasPrefix(got, "deny a *:* rwm; allow b 8:1 rm; allow a *:* m; ") {
		t.Error(got)
	}
	if p.AllowsAll() {
		t.Error("AllowsAll")
	}
	p, _ = CompileDevices(parseDevices(t, `[{"allow":true,"access":"rwm"}]`))
	if !p.AllowsAll() {
		t.Error("not AllowsAll")
	}
}

// TestDeviceOracle runs containerd's program for the same rules, where that is
// right: for requests of a single access. For more it grants what any rule
// touches.
func TestDeviceOracle(t *testing.T) {
	if bigEndian {
		t.Skip("the interpreter reads registers in little endian order")
	}
	for _, rules := range []string{
		`[{"allow":false,"access":"rwm"}]`,
		`[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":8,"access":"rwm"}]`,
		`[{"allow":true,"type":"c","major":5,"access":"rwm"},{"allow":true,"type":"b","minor":3,"access":"rwm"}]`,
		`[{"allow":true,"type":"b","access":"rwm"},{"allow":false,"type":"b","major":8,"minor":0,"access":"rwm"}]`,
	} {
		d := parseDevices(t, rules)
		p, err := CompileDevices(d)
		must(t, err)
		for i := range plainDefaults(t) {
			def := plainDefaults(t)[i]
			for _, n := range []**int64{&def.Major, &def.Minor} {
				if *n == nil {
					*n = ptr(int64(-1)) // containerd dereferences
				}
			}
			d = append(d, def)
		}
		for i := range d {
			if d[i].Type == "" {
				d[i].Type = "a"
			}
			for _, n := range []**int64{&d[i].Major, &d[i].Minor} {
				if *n == nil {
					*n = ptr(int64(-1))
				}
			}
		}
		insns, _, err := cgroup2.DeviceFilter(d)
		must(t, err)
		var buf bytes.Buffer
		must(t, insns.Marshal(&buf, binary.LittleEndian))
		oracle := unsafe.Slice((*instruction)(unsafe.Pointer(&buf.Bytes()[0])), buf.Len()/8)
		for _, q := range requests() {
			if bits.OnesCount32(q.access) > 1 {
				continue
			}
			if got, want := run(t, p.code, q), run(t, oracle, q); got != want {
				t.Fatalf("%s %+v: %v, containerd says %v", p, q, got, want)
			}
		}
	}
}

func ptr[T any](v T) *T { return &v }

// TestAttachDevices asks the kernel itself, from a process inside the group.
func TestAttachDevices(t *testing.T) {
	g := testGroup(t)
	dir := t.TempDir()
	tmpfs(t, dir)
	for name, dev := range map[string]uint64{"null": unix.Mkdev(1, 3), "zero": unix.Mkdev(1, 5), "kmsg": unix.Mkdev(1, 11)} {
		must(t, unix.Mknod(dir+"/"+name, unix.S_IFCHR|0o666, int(dev)))
	}
	try := func(script string) bool {
		cmd := start0(g, exec.Command("/bin/sh", "-c", "cd "+dir+"; "+script))
		return cmd.Run() == nil
	}
	check := func(rules string, want map[string]bool) {
		t.Helper()
		p, err := CompileDevices(parseDevices(t, rules))
		must(t, err)
		must(t, g.AttachDevices(p))
		ids, err := queryPrograms(g.fd)
		must(t, err)
		if len(ids) != 1 {
			t.Errorf("%d programs are attached", len(ids))
		}
		for script, ok := range want {
			if got := try(script); got != ok {
				t.Errorf("%s: %q: %v, want %v", rules, script, got, ok)
			}
		}
	}
	if !try(": <kmsg") {
		t.Skip("cannot open a /dev/kmsg here at all")
	}
	node := "rm -f x; mknod x c 1 11"
	check(`[]`, map[string]bool{": <null": true, ": <>zero": true, ": <kmsg": false, node: true, "rm -f x; mknod x b 8 0": true})
	check(`[{"allow":true,"access":"rwm"}]`, map[string]bool{": <kmsg": true, ": <>kmsg": true})
	check(`[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":11,"access":"w"}]`,
		map[string]bool{": <kmsg": true, ": >kmsg": false, ": <>kmsg": false})
	check(`[{"allow":true,"type":"c","major":1,"minor":11,"access":"r"},{"allow":true,"type":"c","major":1,"minor":11,"access":"w"}]`,
		map[string]bool{": <>kmsg": true})
	check(`[]`, map[string]bool{": <kmsg": false})

	// Programs that somebody else stacked go away with the exchange.
	other, err := CompileDevices(nil)
	must(t, err)
	for range 3 {
		fd, err := loadProgram(other.code)
		must(t, err)
		must(t, attachProgram(g.fd, fd, -1))
		kernfs.Close(fd)
	}
	check(`[{"allow":true,"access":"rwm"}]`, map[string]bool{": <kmsg": true})

	must(t, g.detachDevices())
	if ids, err := queryPrograms(g.fd); err != nil || len(ids) != 0 {
		t.Errorf("after detaching: %v %v", ids, err)
	}
}

// TestReplaceDevices: two hundred updates leave one program, the kernel has let go
// of the others, and a process inside never finds the door open meanwhile.
func TestReplaceDevices(t *testing.T) {
	g := testGroup(t)
	dir := t.TempDir()
	tmpfs(t, dir)
	must(t, unix.Mknod(dir+"/kmsg", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 11))))
	if fd, err := kernfs.Open(unix.AT_FDCWD, dir+"/kmsg", unix.O_RDONLY); err != nil {
		t.Skip("cannot open a /dev/kmsg here at all")
	} else {
		kernfs.Close(fd)
	}
	// Both refuse kmsg, each in its own way.
	var programs [2]Program
	for i, rules := range []string{`[]`, `[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":11,"access":"rw"}]`} {
		var err error
		programs[i], err = CompileDevices(parseDevices(t, rules))
		must(t, err)
	}
	must(t, g.AttachDevices(programs[0]))
	prober := exec.Command("/bin/sh", "-c", "cd "+dir+"; echo >begun; n=0; while [ ! -e stop ]; do n=$((n+1)); true 2>/dev/null <kmsg && : >leak; done; echo $n >tries")
	start(t, g, prober)
	eventually(t, "the prober", func() bool { _, err := os.Stat(dir + "/begun"); return err == nil })

	fds, ids := openFDs(t), map[uint32]bool{}
	for i := range 200 {
		must(t, g.AttachDevices(programs[i%2]))
		now, err := queryPrograms(g.fd)
		must(t, err)
		if len(now) != 1 {
			t.Fatalf("after %d updates %d programs are attached", i+1, len(now))
		}
		ids[now[0]] = true
	}
	if n := openFDs(t); n != fds {
		t.Errorf("%d descriptors leaked", n-fds)
	}
	must(t, os.WriteFile(dir+"/stop", nil, 0o644))
	must(t, prober.Wait())
	if _, err := os.Stat(dir + "/leak"); err == nil {
		t.Error("the prober could open what every program refuses")
	}
	t.Logf("%s tries, %d programs", readFile(t, dir+"/tries"), len(ids))

	must(t, Remove(g.path, []string{g.path}))
	eventually(t, "the kernel frees the programs", func() bool {
		for id := range ids {
			if fd, err := programByID(id); err == nil {
				kernfs.Close(fd)
				return false
			} else if !kernfs.Gone(err) {
				t.Fatal(err)
			}
		}
		return true
	})
}

// TestReplaceKeepsOld: a program that cannot be attached leaves the old one in force.
func TestReplaceKeepsOld(t *testing.T) {
	g := testGroup(t)
	p, err := CompileDevices(nil)
	must(t, err)
	must(t, g.AttachDevices(p))
	before, err := queryPrograms(g.fd)
	must(t, err)
	bad := Program{rules: p.rules, code: []instruction{{opMov, regs(r0, 0), 0, 7}}}
	wantError(t, g.AttachDevices(bad), unix.EINVAL, "/linux/resources/devices", "load device program")
	all, err := CompileDevices(parseDevices(t, `[{"allow":true,"access":"rwm"}]`))
	must(t, err)
	all.code = bad.code // allows everything, but cannot be loaded: the stricter one stays, so that is an error
	wantError(t, g.AttachDevices(all), unix.EINVAL, "/linux/resources/devices")
	after, err := queryPrograms(g.fd)
	must(t, err)
	if !slices.Equal(before, after) {
		t.Errorf("%v, before %v", after, before)
	}
	must(t, g.detachDevices())
	must(t, g.AttachDevices(all)) // nothing is in its way
}

func start0(g *Group, cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: g.FD()}
	return cmd
}

// TestVerifier has the kernel check long programs of every form of rule.
func TestVerifier(t *testing.T) {
	g := testGroup(t)
	fds := openFDs(t)
	var rules []specs.LinuxDeviceCgroup
	for i := range int64(1000) {
		rules = append(rules, specs.LinuxDeviceCgroup{
			Allow:  i%3 == 0,
			Type:   []string{"a", "b", "c"}[i%3],
			Major:  ptr(i),
			Minor:  []*int64{nil, ptr(i)}[i%2],
			Access: []string{"r", "w", "m", "rw", "rm", "wm", "rwm"}[i%7],
		})
	}
	for _, n := range []int{1, 100, len(rules)} {
		p, err := CompileDevices(rules[:n])
		must(t, err)
		if err := g.AttachDevices(p); err != nil {
			t.Errorf("%d rules, %d instructions: %v", n, len(p.code), err)
		}
	}
	if n := openFDs(t); n != fds {
		t.Errorf("%d descriptors leaked", n-fds)
	}
	for i := range int64(20000) {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr(i % 4096), Minor: ptr(i), Access: "r"})
	}
	for n, ok := range map[int]bool{4000: true, len(rules): false} {
		p, err := CompileDevices(rules[:n])
		must(t, err)
		err = g.AttachDevices(p)
		if !ok {
			wantError(t, err, nil, "/linux/resources/devices", fmt.Sprint(n, " rules are too many"), "wildcard")
		} else if err != nil {
			t.Errorf("%d rules: %v", n, err)
		}
	}
	_, err := loadProgram([]instruction{{opMov, 0, 0, 7}})
	wantError(t, err, unix.EINVAL)
	wantError(t, g.AttachDevices(Program{}), nil, "/linux/resources/devices", "empty")
}

// TestAttrCanary: the kernel must not write beyond the attributes it is given.
func TestAttrCanary(t *testing.T) {
	g := testGroup(t)
	for name, size := range map[string]uintptr{"load": unsafe.Sizeof(loadAttr{}), "attach": unsafe.Sizeof(attachAttr{}), "query": unsafe.Sizeof(queryAttr{}), "id": unsafe.Sizeof(idAttr{})} {
		if size != attrSize {
			t.Errorf("%s: %d bytes", name, size)
		}
	}
	var mem struct {
		attr   queryAttr
		canary [512]byte
	}
	for i := range mem.canary {
		mem.canary[i] = 0xa5
	}
	ids := make([]uint32, 64)
	mem.attr = queryAttr{target: uint32(g.fd), attachType: unix.BPF_CGROUP_DEVICE, ids: &ids[0], count: 64}
	if _, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&mem.attr)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mem.canary[:], bytes.Repeat([]byte{0xa5}, 512)) {
		t.Error("the kernel wrote beyond the attributes")
	}
}

func BenchmarkLoadProgram(b *testing.B) {
	needCgroup2(b)
	p, err := CompileDevices(nil)
	must(b, err)
	for b.Loop() {
		fd, err := loadProgram(p.code)
		must(b, err)
		kernfs.Close(fd)
	}
}

func BenchmarkAttachDevices(b *testing.B) {
	g := testGroup(b)
	p, err := CompileDevices(nil)
	must(b, err)
	for b.Loop() {
		must(b, g.AttachDevices(p))
	}
}

// TestCheckProgram: what would be refused is, and nothing is attached by asking.
func TestCheckProgram(t *testing.T) {
	g := testGroup(t)
	must(t, compileRules(t, 10).Check())
	if err := compileRules(t, 20000).Check(); err == nil {
		t.Error("20000 rules pass")
	}
	if ids, err := queryPrograms(g.fd); err != nil || len(ids) > 0 {
		t.Errorf("%d programs are attached, %v", len(ids), err)
	}
}

func compileRules(t *testing.T, n int) Program {
	t.Helper()
	var rules []specs.LinuxDeviceCgroup
	for i := range n {
		minor := int64(i)
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: i%2 == 0, Type: "c", Major: new(int64(240)), Minor: &minor, Access: "r"})
	}
	p, err := CompileDevices(rules)
	must(t, err)
	return p
}
