package rootfs

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The words that the specification wants (MUST, SHOULD, MAY) from a runtime.
const wantedWords = `async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime
nodev nodiratime noexec noiversion nolazytime norelatime nostrictatime nosuid private rbind relatime remount
ro rprivate rshared rslave runbindable rw shared silent slave strictatime suid sync unbindable
nosymfollow symfollow rro rrw rsuid rnosuid rdev rnodev rexec rnoexec ratime rnoatime rdiratime rnodiratime
rrelatime rnorelatime rstrictatime rnostrictatime rsymfollow rnosymfollow mand nomand tmpcopyup idmap ridmap copy-symlink scratch src-nosymlinks`

func TestOptionTable(t *testing.T) {
	names := MountOptions()
	if !slices.IsSorted(names) {
		t.Error("the table is not sorted")
	}
	want := strings.Fields(wantedWords)
	slices.Sort(want)
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func parse(words ...string) *Step {
	s := new(Step)
	for _, w := range words {
		s.option(w)
	}
	return s
}

func TestOptionWords(t *testing.T) {
	for _, tt := range []struct {
		words string
		want  Step
	}{
		{"defaults", Step{}},
		{"silent loud iversion noiversion", Step{}},
		{"ro", Step{Set: attrRO}},
		{"ro rw", Step{Clr: attrRO}},
		{"rw ro", Step{Set: attrRO}},
		{"nosuid nodev noexec suid", Step{Set: attrNodev | attrNoexec, Clr: attrNosuid}},
		{"noatime", Step{Set: attrNoatime, Clr: attrAtime}},
		{"noatime strictatime", Step{Set: attrStrict, Clr: attrAtime}},
		{"strictatime noatime", Step{Set: attrNoatime, Clr: attrAtime}},
		{"strictatime relatime", Step{Clr: attrAtime}},
		{"noatime atime", Step{Clr: attrAtime}},
		{"strictatime atime", Step{Set: attrStrict, Clr: attrAtime}},
		{"atime", Step{Clr: attrAtime}},
		{"norelatime", Step{Clr: attrAtime}},
		{"noatime norelatime", Step{Set: attrNoatime, Clr: attrAtime}},
		{"strictatime nostrictatime", Step{Clr: attrAtime}},
		{"nodiratime", Step{Set: attrNodir}},
		{"noatime nodiratime diratime", Step{Set: attrNoatime, Clr: attrAtime | attrNodir}},
		{"rro rw", Step{RSet: attrRO, Clr: attrRO}},
		{"rnoatime rnosuid", Step{RSet: attrNoatime | attrNosuid, RClr: attrAtime}},
		{"rnoatime ratime", Step{RClr: attrAtime}},
		{"rbind rslave", Step{Flags: FlagBind | FlagRec, Propagation: unix.MS_SLAVE | unix.MS_REC}},
		{"bind shared private", Step{Flags: FlagBind, Propagation: unix.MS_PRIVATE}},
		{"nosymfollow", Step{Set: attrNosym}},
	} {
		if diff := cmp.Diff(tt.want, *parse(strings.Fields(tt.words)...)); diff != "" {
			t.Errorf("%s:\n%s", tt.words, diff)
		}
	}
}

func TestSplitData(t *testing.T) {
	for in, want := range map[string][]string{
		"size=1k":                          {"size=1k"},
		"size=1k,mode=700":                 {"size=1k", "mode=700"},
		`lowerdir=/a\,b:/c,index=off`:      {`lowerdir=/a\,b:/c`, "index=off"},
		`context="u:r:t:s0:c1,c2",size=1k`: {`context=u:r:t:s0:c1,c2`, "size=1k"},
		",,":                               {},
	} {
		if diff := cmp.Diff(want, splitData(in)); diff != "" {
			t.Errorf("%s:\n%s", in, diff)
		}
	}
}

// What every word does to a mount of its own, seen from inside.
func TestFilesystemOptions(t *testing.T) {
	const plain = "rw,relatime"
	want := map[string]string{
		"ro": "ro,relatime", "nosuid": "rw,nosuid,relatime", "nodev": "rw,nodev,relatime", "noexec": "rw,noexec,relatime",
		"noatime": "rw,noatime", "strictatime": "rw", "nodiratime": "rw,nodiratime,relatime",
		"nosymfollow": "rw,relatime,nosymfollow",
		"rro":         "ro,relatime", "rnosuid": "rw,nosuid,relatime", "rnodev": "rw,nodev,relatime", "rnoexec": "rw,noexec,relatime",
		"rnoatime": "rw,noatime", "rstrictatime": "rw", "rnodiratime": "rw,nodiratime,relatime",
		"rnosymfollow": "rw,relatime,nosymfollow",
		"shared":       plain + " shared", "rshared": plain + " shared",
		"unbindable": plain + " unbindable", "runbindable": plain + " unbindable",
	}
	b := newBundle(t)
	spec := &specs.Spec{Mounts: []specs.Mount{{Destination: "/proc", Type: "proc"}}}
	for _, word := range MountOptions() {
		if slices.Contains([]string{"bind", "rbind", "remount", "idmap", "ridmap", "copy-symlink", "scratch", "src-nosymlinks"}, word) {
			continue
		}
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/tmp/" + word, Type: "tmpfs", Options: []string{word}})
	}
	table := b.must(spec, "cat", self)
	for _, m := range spec.Mounts[1:] {
		word := m.Options[0]
		expect, ok := want[word]
		if !ok {
			expect = plain
		}
		got := topMount(t, table, m.Destination)
		propagation, _, _ := strings.Cut(got.Propagation, ":")
		if text := strings.TrimSpace(got.Options + " " + propagation); text != expect {
			t.Errorf("%s: %s, want %s", word, text, expect)
		}
		for _, sb := range []string{"sync", "dirsync", "lazytime", "mand"} {
			if has := slices.Contains(strings.Split(got.Super, ","), sb); has != (sb == word) {
				t.Errorf("%s: %s of the filesystem: %v (%s)", word, sb, has, got.Super)
			}
		}
	}
}

// The clearing words on a bind mount of a tree that has everything set, and the
// setting ones on a tree that has nothing set: the top, and one mount below it.
func TestBindOptions(t *testing.T) {
	const (
		all   = "ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow"
		plain = "rw,relatime"
	)
	b := newBundle(t)
	full, empty := b.dir+"/full", b.dir+"/empty"
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | 0x100 // nosymfollow
	hostMount(t, "none", full, "tmpfs", flags, "")
	hostMount(t, "none", full+"/sub", "tmpfs", flags|unix.MS_RDONLY, "")
	must(t, unix.Mount("", full, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|flags, ""))
	hostMount(t, "none", empty, "tmpfs", 0, "")
	hostMount(t, "none", empty+"/sub", "tmpfs", 0, "")
	without := func(word string) string {
		return strings.ReplaceAll(","+all+",", ","+word+",", ",")[1:]
	}
	cleared := func(word string) string { return strings.Trim(without(word), ",") }
	for _, tt := range []struct{ source, words, top, sub string }{
		{full, "rbind", all, all},
		{full, "rbind rw", "rw," + cleared("ro"), all},
		{full, "rbind suid", cleared("nosuid"), all},
		{full, "rbind dev exec diratime symfollow", "ro,nosuid,noatime", all},
		{full, "rbind atime", strings.Replace(cleared("noatime"), "nodiratime", "nodiratime,relatime", 1), all},
		{full, "rbind strictatime", cleared("noatime"), all},
		{full, "rbind rrw rsuid rdev rexec ratime rdiratime rsymfollow", plain, plain},
		{full, "rbind rstrictatime", cleared("noatime"), cleared("noatime")},
		{full, "rbind sync async dirsync lazytime mand", all, all},
		{empty, "rbind", plain, plain},
		{empty, "bind", plain, ""},
		{empty, "rbind ro nosuid nodev noexec noatime nodiratime nosymfollow", all, plain},
		{empty, "rbind rro rnosuid rnodev rnoexec rnoatime rnodiratime rnosymfollow", all, all},
		{empty, "rbind rro rw", "ro,relatime", "ro,relatime"},
		{empty, "rbind rrelatime rnorelatime rnostrictatime", plain, plain},
	} {
		spec := &specs.Spec{Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc"},
			{Destination: "/tmp", Source: tt.source, Options: strings.Fields(tt.words)},
		}}
		table := b.must(spec, "cat", self)
		if got := topMount(t, table, "/tmp").Options; got != tt.top {
			t.Errorf("%s of %s: %s, want %s", tt.words, tt.source[len(b.dir):], got, tt.top)
		}
		if tt.sub == "" {
			if strings.Contains(table, " /tmp/sub ") {
				t.Errorf("%s: /tmp/sub is there", tt.words)
			}
		} else if got := topMount(t, table, "/tmp/sub").Options; got != tt.sub {
			t.Errorf("%s of %s: below: %s, want %s", tt.words, tt.source[len(b.dir):], got, tt.sub)
		}
	}
}

// Every sequence of up to three words about access times, on new mounts, on binds of a
// mount that has a policy of its own, and recursive: the last of contradicting words
// wins, as mount(8) has it, and what is taken back leaves the kernel's default.
func TestAccessTimes(t *testing.T) {
	words := strings.Fields("atime noatime relatime norelatime strictatime nostrictatime diratime nodiratime")
	var sequences [][]string
	for _, a := range words {
		sequences = append(sequences, []string{a})
		for _, b := range words {
			sequences = append(sequences, []string{a, b})
			for _, c := range words {
				sequences = append(sequences, []string{a, b, c})
			}
		}
	}
	b := newBundle(t)
	hostMount(t, "none", b.dir+"/src", "tmpfs", unix.MS_NOATIME|unix.MS_NODIRATIME, "")
	hostMount(t, "none", b.dir+"/src/sub", "tmpfs", unix.MS_STRICTATIME, "")
	for _, tt := range []struct {
		name, prefix string
		mount        specs.Mount
		top, sub     string // options without any word
	}{
		{"tmpfs", "", specs.Mount{Type: "tmpfs"}, "relatime", ""},
		{"recursive on tmpfs", "r", specs.Mount{Type: "tmpfs"}, "relatime", ""},
		{"bind", "", specs.Mount{Source: b.dir + "/src", Options: []string{"rbind"}}, "noatime,nodiratime", ""},
		{"recursive bind", "r", specs.Mount{Source: b.dir + "/src", Options: []string{"rbind"}}, "noatime,nodiratime", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := &specs.Spec{Mounts: []specs.Mount{{Destination: "/proc", Type: "proc"}}}
			for i, sequence := range sequences {
				m := tt.mount
				m.Destination = "/tmp/" + strconv.Itoa(i)
				m.Options = slices.Clip(m.Options)
				for _, word := range sequence {
					m.Options = append(m.Options, tt.prefix+word)
				}
				spec.Mounts = append(spec.Mounts, m)
			}
			seen := map[string]string{}
			for _, m := range parseMounts(b.must(spec, "cat", self)) {
				seen[m.On] = m.Options
			}
			for i, sequence := range sequences {
				on := "/tmp/" + strconv.Itoa(i)
				if got, want := seen[on], "rw"+accessTimes(tt.top, sequence); got != want {
					t.Errorf("%v: %q, want %q", sequence, got, want)
				}
				if tt.mount.Source == "" {
					continue
				}
				want := "rw" // strictatime shows as nothing
				if tt.prefix != "" {
					want += accessTimes("", sequence)
				}
				if got := seen[on+"/sub"]; got != want {
					t.Errorf("%v: below %q, want %q", sequence, got, want)
				}
			}
		})
	}
}

// accessTimes is what mountinfo says after the words, of a mount that had the options.
func accessTimes(options string, words []string) string {
	policy, nodir := "strictatime", strings.Contains(options, "nodiratime")
	for _, known := range []string{"noatime", "relatime"} {
		if slices.Contains(strings.Split(options, ","), known) {
			policy = known
		}
	}
	asked := ""
	for _, word := range words {
		switch word {
		case "diratime", "nodiratime":
			nodir = word == "nodiratime"
		case "noatime", "relatime", "strictatime":
			asked = word
		default: // of a policy that was not asked for, or just now
			taken := map[string]string{"atime": "noatime", "norelatime": "relatime", "nostrictatime": "strictatime"}[word]
			if asked == "" || asked == taken {
				asked = "relatime"
			}
		}
	}
	if asked != "" {
		policy = asked
	}
	text := ""
	if policy == "noatime" {
		text += ",noatime"
	}
	if nodir {
		text += ",nodiratime"
	}
	if policy == "relatime" {
		text += ",relatime"
	}
	return text
}

// Propagation of a bind of a shared and of a private host mount.
func TestBindPropagation(t *testing.T) {
	b := newBundle(t)
	src := b.dir + "/shared"
	hostMount(t, "none", src, "tmpfs", 0, "")
	must(t, unix.Mount("", src, "", unix.MS_SHARED, ""))
	hostMount(t, "none", src+"/sub", "tmpfs", 0, "") // shared too
	for _, tt := range []struct{ words, top, sub string }{
		{"rbind", "master", "master"},
		{"rbind slave", "master", "master"},
		{"rbind rslave", "master", "master"},
		{"rbind private", "", "master"},
		{"rbind rprivate", "", ""},
		{"rbind unbindable", "unbindable", "master"},
		{"rbind runbindable", "unbindable", "unbindable"},
		{"rbind shared", "shared", "shared"},
		{"rbind rshared", "shared", "shared"},
	} {
		spec := &specs.Spec{Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc"},
			{Destination: "/tmp", Source: src, Options: strings.Fields(tt.words)},
		}}
		table := b.must(spec, "cat", self)
		for on, want := range map[string]string{"/tmp": tt.top, "/tmp/sub": tt.sub} {
			if got, _, _ := strings.Cut(topMount(t, table, on).Propagation, ":"); got != want {
				t.Errorf("%s on %s: %q, want %q", tt.words, on, got, want)
			}
		}
		if host, err := os.ReadFile(self); tt.top == "shared" {
			must(t, err) // with the host, not among themselves
			if got, want := topMount(t, table, "/tmp").Propagation, topMount(t, string(host), src).Propagation; got != want {
				t.Errorf("%s: %s, on the host %s", tt.words, got, want)
			}
		}
	}
}

// Nothing mounted inside a container travels through a shared rootfs.
func TestSharedHost(t *testing.T) {
	for _, word := range []string{"", "shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"} {
		t.Run(word, func(t *testing.T) {
			b := newBundle(t)
			hostMount(t, "none", b.dir+"/disk", "tmpfs", 0, "")
			must(t, unix.Mount("", b.dir+"/disk", "", unix.MS_SHARED, ""))
			hostMount(t, b.path(""), b.dir+"/disk/rootfs", "", unix.MS_BIND, "")
			hostMount(t, "none", b.dir+"/disk/rootfs/tmp", "tmpfs", 0, "")
			spec := standard()
			spec.Root = &specs.Root{Path: "disk/rootfs"}
			spec.Linux.RootfsPropagation = word
			table := b.must(spec, "cat", self)
			want := map[string][2]string{
				"": {"master", "master"}, "slave": {"master", "master"}, "rslave": {"master", "master"},
				"shared": {"shared master", "master"}, "rshared": {"shared master", "shared master"},
				"private": {"", ""}, "rprivate": {"", ""},
				"unbindable": {"unbindable", ""}, "runbindable": {"unbindable", "unbindable"},
			}[word]
			for i, on := range []string{"/", "/tmp"} {
				if got := kinds(topMount(t, table, on).Propagation); got != want[i] {
					t.Errorf("%s: %q, want %q", on, got, want[i])
				}
			}
		})
	}
}

// kinds drops the group numbers.
func kinds(propagation string) string {
	var words []string
	for _, w := range strings.Fields(propagation) {
		kind, _, _ := strings.Cut(w, ":")
		words = append(words, kind)
	}
	return strings.Join(words, " ")
}

func FuzzOptions(f *testing.F) {
	for _, o := range optionTable {
		f.Add(o.name + "," + o.name)
	}
	f.Add("noatime,strictatime,size=5,rro,ratime")
	f.Fuzz(func(t *testing.T, text string) {
		s := parse(strings.Split(text, ",")...)
		for _, pair := range [][2]uint64{{s.Set, s.Clr}, {s.RSet, s.RClr}} {
			set, clr := pair[0], pair[1]
			if set&attrAtime != 0 && clr&attrAtime != attrAtime || clr&attrAtime != 0 && clr&attrAtime != attrAtime {
				t.Errorf("%q: the kernel would refuse set %#x clear %#x", text, set, clr)
			}
			if set&attrAtime == attrAtime || set&clr&^attrAtime != 0 {
				t.Errorf("%q: set %#x and clear %#x contradict", text, set, clr)
			}
		}
		// What a plan says of a mount means the mount.
		again := parse(attrNames(attrNames(nil, "", s.Set, s.Clr), "r", s.RSet, s.RClr)...)
		if again.Set != s.Set || again.Clr != s.Clr || again.RSet != s.RSet || again.RClr != s.RClr {
			t.Errorf("%q: %+v reads back as %+v", text, s, again)
		}
		if joined := strings.Join(splitData(text), ","); len(joined) > len(text) {
			t.Errorf("%q became %q", text, joined)
		}
	})
}
