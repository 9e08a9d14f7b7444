package systemd

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("x", 255-len("-husk.scope"))
	for _, c := range []struct {
		path, id string
		user     bool
		slice    string
		name     string
		cgroup   string
	}{
		{"", "c1", false, "system.slice", "husk-c1.scope", "/system.slice/husk-c1.scope"},
		{"", "c1", true, "user.slice", "husk-c1.scope", "/user.slice/husk-c1.scope"},
		{"system.slice:docker:0123", "c1", false, "system.slice", "docker-0123.scope", "/system.slice/docker-0123.scope"},
		{"a-b-c.slice:crio:x", "c1", false, "a-b-c.slice", "crio-x.scope", "/a.slice/a-b.slice/a-b-c.slice/crio-x.scope"},
		{"-.slice:p:x", "c1", false, "-.slice", "p-x.scope", "/p-x.scope"},
		{"::x", "c1", false, "system.slice", "-x.scope", "/system.slice/-x.scope"},
		{":husk:a+b@c", "c1", false, "system.slice", `husk-a\x2bb\x40c.scope`, `/system.slice/husk-a\x2bb\x40c.scope`},
		{`:husk:a\x2db`, "c1", false, "system.slice", `husk-a\x2db.scope`, `/system.slice/husk-a\x2db.scope`},
		{":cpu.x:1", "c1", false, "system.slice", "cpu.x-1.scope", "/system.slice/_cpu.x-1.scope"},
		{"::cpu-memory.slice", "c1", false, "cpu.slice", "cpu-memory.slice", "/_cpu.slice/cpu-memory.slice"},
		{":cgroup.x:1", "c1", false, "system.slice", "cgroup.x-1.scope", "/system.slice/_cgroup.x-1.scope"},
		{":.:1", "c1", false, "system.slice", ".-1.scope", "/system.slice/_.-1.scope"},
		{"memory.slice:cpu:1", "c1", false, "memory.slice", "cpu-1.scope", "/_memory.slice/cpu-1.scope"},
		{":_x:1", "c1", false, "system.slice", "_x-1.scope", "/system.slice/__x-1.scope"},
		{"::a.slice", "c1", true, "-.slice", "a.slice", "/a.slice"},
		{"a.slice::a-b.slice", "c1", false, "a.slice", "a-b.slice", "/a.slice/a-b.slice"},
		{":husk:" + long, "c1", false, "system.slice", "husk-" + long + ".scope", "/system.slice/husk-" + long + ".scope"},
	} {
		u, err := Parse(c.path, c.id, c.user)
		must(t, err)
		if u.Slice != c.slice || u.Name != c.name || u.User != c.user || u.cgroup() != c.cgroup || u.String() != c.name {
			t.Errorf("%q: %+v at %s; want %s %s at %s", c.path, u, u.cgroup(), c.slice, c.name, c.cgroup)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for path, words := range map[string][]string{
		"/a/b":                                  {`expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "/a/b" instead`, "system.slice:husk:c1"},
		"a:b":                                   {`"slice:prefix:name"`, `got "a:b" instead`},
		"a:b:c:d":                               {`"slice:prefix:name"`},
		"a/b.slice:x:y":                         {`"slice:prefix:name"`},
		":x:../../y":                            {`"slice:prefix:name"`},
		"system.slice:x:":                       {"name is empty"},
		"system:x:y":                            {`does not end in ".slice"`, "system.slice"},
		"a--b.slice:x:y":                        {"dashes", "a-b.slice"},
		"-a.slice:x:y":                          {"dashes"},
		"a-.slice:x:y":                          {"dashes"},
		".slice:x:y":                            {"dashes"},
		"a b.slice:x:y":                         {"is not a slice"},
		"a@b.slice:x:y":                         {"is not a slice"},
		"ä.slice:x:y":                           {"is not a slice"},
		"::-.slice":                             {"root of all cgroups"},
		"b.slice:x:a.slice":                     {"is not in b.slice", "puts it in -.slice"},
		"a.slice::a--.slice":                    {"dashes"},
		":husk:" + strings.Repeat("x", 245):     {"256 bytes", "at most 255"},
		strings.Repeat("x", 250) + ".slice:x:y": {"256 bytes"},
	} {
		_, err := Parse(path, "c1", false)
		wantError(t, err, nil, append(words, "cgroupsPath")...)
		if strings.Contains(err.Error(), "bytes") {
			wantError(t, err, unix.ENAMETOOLONG)
		}
	}
}

func TestObject(t *testing.T) {
	for name, want := range map[string]string{
		"husk-c1.scope": "/org/freedesktop/systemd1/unit/husk_2dc1_2escope",
		"1a_.slice":     "/org/freedesktop/systemd1/unit/_31a_5f_2eslice",
	} {
		if got := (Unit{Name: name}).object(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// Whatever the configuration says, what is made of it stays a valid unit and a path
// below its slice.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "a-b.slice:p:n", "-.slice::x", "::a-b.slice", ":cpu.:1", "a.slice:\x00:\xff", ":..:..", "::..slice"} {
		f.Add(s, "c1", false)
	}
	f.Fuzz(func(t *testing.T, path, id string, user bool) {
		u, err := Parse(path, id, user)
		if err != nil {
			return
		}
		if len(u.Name) > 255 || strings.ContainsFunc(u.Name+u.Slice, func(r rune) bool { return !inName(r) }) {
			t.Errorf("%q: %+v is not valid", path, u)
		}
		if err := checkGroup(u.cgroup()); err != nil {
			t.Error(err)
		}
		for part := range strings.SplitSeq(u.cgroup()[1:], "/") {
			if part == "" || part == "." || strings.HasPrefix(part, "cgroup.") || len(part) > 256 {
				t.Errorf("%q: %s", path, u.cgroup())
			}
		}
	})
}
