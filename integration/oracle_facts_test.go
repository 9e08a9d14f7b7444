package integration

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// seen is what is seen of a container, by fact.
type seen map[string]string

// notCompared are no facts about the container.
var notCompared = []string{"message"}

// differing lists the facts that two runtimes' containers do not share. Of a container
// that was refused there is nothing else to say.
func (s seen) differing(other seen) []string {
	if s["result"] != other["result"] && (s["result"] == "refused" || other["result"] == "refused") {
		return []string{"result"}
	}
	keys := slices.Concat(slices.Collect(maps.Keys(s)), slices.Collect(maps.Keys(other)))
	slices.Sort(keys)
	return slices.DeleteFunc(slices.Compact(keys), func(key string) bool {
		return s.value(key) == other.value(key) || slices.Contains(notCompared, key) ||
			s.lacks(key) || other.lacks(key)
	})
}

// lacks says whether a fact is about a mount that is not there, or a hook that was not
// called, which is a fact itself.
func (s seen) lacks(key string) bool {
	words := strings.SplitN(key, " ", 3)
	return len(words) == 3 && (words[0] == "mount" || words[0] == "hook") && s[words[0]+" "+words[1]] == ""
}

func (s seen) value(key string) string {
	if v, ok := s[key]; ok {
		return v
	}
	return "nothing"
}

// add adds a value to a fact that may have several.
func (s seen) add(key, value string) {
	if old, ok := s[key]; ok {
		value = old + " | " + value
	}
	s[key] = value
}

// anonymous numbers are the kernel's.
var anonymous = regexp.MustCompile(`\[\d+\]`)

// facts adds the probe's lines, without what is never the same twice.
func (s seen) facts(out string, o *oracle) {
	f := parseFacts(out)
	for key, values := range f {
		kind, _, _ := strings.Cut(key, ".")
		switch kind {
		case "mount", "clock", "pid", "ppid", "pgid", "sid":
		case "cgroup": // only of the one hierarchy that this is about
			s[key] = strings.Join(slices.DeleteFunc(values, func(v string) bool { return !strings.HasPrefix(v, "0::") }), " | ")
		case "status":
			if key == "status.NSpid" {
				values = []string{fmt.Sprint(len(strings.Fields(f.one(key))))}
			}
			s[key] = strings.Join(values, " | ")
		case "data", "fds", "rest", "size", "tty":
			if strings.Contains(key, ".") { // not what the receiver of a terminal says
				s[key] = strings.Join(values, " | ")
			}
		case "fd", "link", "see", "env":
			for _, v := range values {
				name, rest, _ := strings.Cut(v, map[bool]string{true: "=", false: " "}[kind == "env"])
				s.add(key+" "+name, anonymous.ReplaceAllString(rest, "[]"))
			}
		case "ns":
			s[key] = o.whose(f.one(key))
		default:
			for i, v := range values {
				values[i] = strings.Join(strings.Fields(v), " ")
			}
			s[key] = strings.Join(values, " | ")
		}
	}
	s.relations(f)
	s.mounts(f["mount"], o)
}

// whose says whose namespace it is.
func (o *oracle) whose(link string) string {
	if name, ok := o.own[link]; ok {
		return name
	}
	return map[bool]string{true: "a new one", false: "unknown"}[link != ""]
}

// namespacesOf lists the namespaces of this box and those made to be joined.
func namespacesOf(t *testing.T) map[string]string {
	t.Helper()
	own := map[string]string{}
	for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		link, err := os.Readlink("/proc/thread-self/ns/" + name)
		must(t, err)
		own[link] = "the caller's"
	}
	return own
}

// relations says of process IDs only how they relate.
func (s seen) relations(f facts) {
	pid := f.one("pid")
	for _, key := range []string{"pid", "ppid", "pgid", "sid"} {
		switch v := f.one(key); {
		case v == "0" || v == "1":
			s[key] = v
		case key != "pid" && v == pid:
			s[key] = "the pid"
		default:
			s[key] = "another"
		}
	}
}

var peerGroups = regexp.MustCompile(`(shared|master|propagate_from):\d+`)

// mounts makes some facts of each line of mountinfo. What lies on another mount of the
// same place gets a number.
func (s seen) mounts(lines []string, o *oracle) {
	host := map[string]bool{}
	for _, l := range fileLines("/proc/thread-self/mountinfo") {
		host[strings.Fields(l)[2]] = true
	}
	count := map[string]int{}
	for _, l := range lines {
		f := strings.Fields(l)
		if len(f) < 6 {
			s.add("mount", "cannot be read: "+l)
			continue
		}
		at := "mount " + f[4]
		if count[at]++; count[at] > 1 {
			at = fmt.Sprintf("%s#%d", at, count[at])
		}
		options, propagation, fstype, super := mountParts(l)
		s[at] = "is there"
		s[at+" options"] = options
		s[at+" propagation"] = cmp.Or(strings.TrimSpace(peerGroups.ReplaceAllString(propagation, "$1")), "private")
		s[at+" type"] = fstype
		s[at+" data"] = super
		s[at+" root"] = f[3]
		s[at+" instance"] = map[bool]string{true: "the caller's", false: "its own"}[host[f[2]]]
		if _, tail, ok := strings.Cut(l, " - "); ok && len(strings.Fields(tail)) > 2 {
			s[at+" source"] = strings.Fields(tail)[1]
		}
	}
}

// hooks adds what hooks saw, each under its name and number.
func (s seen) hooks(t *testing.T, o *oracle) {
	t.Helper()
	text := textOf(oracleHooks) + textOf(filepath.Join(oracleBundle, "rootfs/hooks")) + textOf(filepath.Join(oracleBundle, "rootfs/tmp/hooks"))
	order := []string{}
	for _, part := range strings.Split(text, "hook ")[1:] {
		name, rest, _ := strings.Cut(part, "\n")
		order = append(order, name)
		s["hook "+name] = "was called"
		f := parseFacts(rest)
		for _, key := range []string{"cwd", "uid", "gid", "groups", "umask", "nnp", "seccomp", "oom", "cap.effective", "cap.bounding", "sig.blocked", "sig.ignored"} {
			s["hook "+name+" "+key] = f.one(key)
		}
		for _, e := range f["env"] {
			s.add("hook "+name+" env", e)
		}
		for _, key := range []string{"ns.mnt", "ns.pid", "ns.net", "ns.user", "ns.cgroup"} {
			s["hook "+name+" "+key] = o.whose(f.one(key))
		}
		s.state("hook "+name+" state ", f.one("state"))
	}
	if len(order) > 0 {
		slices.Sort(order) // those of the container's side are in a file of their own
		s["hooks"] = strings.Join(order, " ")
	}
}

// state adds what the specification says of a state.
func (s seen) state(prefix, text string) {
	var state map[string]any
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		s[prefix] = err.Error() + ": " + text
		return
	}
	for _, key := range []string{"ociVersion", "id", "status", "bundle", "annotations"} {
		s[prefix+key] = fmt.Sprint(state[key])
	}
	switch pid := state["pid"]; pid {
	case nil, 0.0, 1.0:
		s[prefix+"pid"] = fmt.Sprint(pid)
	default:
		s[prefix+"pid"] = "another"
	}
}
