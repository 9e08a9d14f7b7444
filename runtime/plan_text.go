package runtime

import (
	"encoding/json/v2"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/huskrun/husk/cgroups/resctrl"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Line is one line of a printed plan.
type Line struct {
	Phase string `json:"phase"` // "parent", "create" or "start"
	Field string `json:"field"` // JSON pointer of the config field, "" for what the spec always asks for
	Text  string `json:"text"`
}

// Lines describes the whole plan in the order in which it happens.
func (p *Plan) Lines() []Line {
	lines := p.hostLines()
	hooks := hooksOf(p.config.Spec)
	phase := "create"
	for i := range p.Steps {
		s := &p.Steps[i]
		lines = append(lines, Line{phase, s.Field, s.String()})
		switch s.Op {
		case opOutside:
			lines = append(lines, hookLines("prestart", hooks.Prestart)...)
			lines = append(lines, hookLines("createRuntime", hooks.CreateRuntime)...)
		case opReady:
			phase = "start"
		}
	}
	lines = append(lines, hookLines("poststart", hooks.Poststart)...)
	return append(lines, hookLines("poststop", hooks.Poststop)...)
}

// hostLines describes what the parent prepares before or while the init runs.
func (p *Plan) hostLines() []Line {
	var lines []Line
	add := func(field, format string, args ...any) {
		lines = append(lines, Line{"parent", field, fmt.Sprintf(format, args...)})
	}
	switch {
	case p.Unit != nil:
		add("/linux/cgroupsPath", "have systemd start unit %s in %s", p.Unit.Name, p.Unit.Slice)
	case p.Cgroup != "":
		add("/linux/cgroupsPath", "create cgroup %s", p.Cgroup)
	}
	for i, n := range p.config.Spec.Linux.Namespaces {
		field := pointer("/linux/namespaces", strconv.Itoa(i))
		if n.Path == "" {
			add(field, "new %s namespace", n.Type)
		} else {
			add(field, "join %s namespace %s", n.Type, n.Path)
		}
	}
	for i, m := range p.Spawn.UIDMaps {
		add(pointer("/linux/uidMappings", strconv.Itoa(i)), "map uids %d+%d to host %d", m.ContainerID, m.Size, m.HostID)
	}
	for i, m := range p.Spawn.GIDMaps {
		add(pointer("/linux/gidMappings", strconv.Itoa(i)), "map gids %d+%d to host %d", m.ContainerID, m.Size, m.HostID)
	}
	for _, l := range p.Limits {
		add(l.Field, "%s", l)
	}
	if p.Unit != nil || p.Cgroup != "" {
		add("/linux/resources/devices", "attach the device program: %s", p.Devices)
	}
	if r := p.Rdt; r != nil {
		add(resctrl.Pointer, "%s", rdtText(r))
	}
	by := ""
	if p.Pasta != nil {
		by = " by pasta"
	}
	for _, l := range p.Links {
		if l.Host != "" {
			add(l.Field, "move network device %s into the container as %s", l.Host, l.Name)
		} else {
			add(l.Field, "make network device %s%s: %s", l.Name, by, l.Make)
		}
	}
	if proc := p.config.Spec.Process; proc != nil && proc.OOMScoreAdj != nil {
		add("/process/oomScoreAdj", "set oom_score_adj %d", *proc.OOMScoreAdj)
	}
	return lines
}

func rdtText(r *specs.LinuxIntelRdt) string {
	text := "enter a class of service of its own"
	switch r.ClosID {
	case "":
	case "/":
		text = "enter the default class of service"
	default:
		text = "enter class of service " + r.ClosID
	}
	schemas := slices.DeleteFunc(append([]string{r.L3CacheSchema, r.MemBwSchema}, r.Schemata...), func(s string) bool { return s == "" })
	if len(schemas) > 0 {
		text += ", with " + strings.Join(schemas, " and ")
	}
	if r.EnableMonitoring {
		text += ", monitored"
	}
	return text
}

func hookLines(name string, hooks []specs.Hook) (lines []Line) {
	for i, h := range hooks {
		lines = append(lines, Line{"parent", pointer("/hooks", name, strconv.Itoa(i)), "run hook " + h.Path})
	}
	return lines
}

// Write prints the plan, one step a line, as text or as a JSON array.
func (p *Plan) Write(w io.Writer, asJSON bool) error {
	if asJSON {
		if err := json.MarshalWrite(w, p.Lines()); err != nil {
			return err
		}
		_, err := io.WriteString(w, "\n")
		return err
	}
	for _, l := range p.Lines() {
		if _, err := fmt.Fprintf(w, "%-6s  %-34s  %s\n", l.Phase, l.Field, l.Text); err != nil {
			return err
		}
	}
	return nil
}

// String says in words what the step does.
func (s *Step) String() string {
	switch s.Op {
	case opRootfs:
		return s.Mount.String()
	case opLoopback:
		return "bring interface lo up"
	case opHostname:
		return "set host name " + s.Args[0]
	case opDomainname:
		return "set domain name " + s.Args[0]
	case opKeyring:
		return "join session keyring " + s.Args[0]
	case opSession:
		if s.Field == "" {
			return "start a new session without a terminal"
		}
		return "start a new session with the container's terminal"
	case opOutside:
		if s.Field != "/hooks" {
			return "wait for the network devices"
		}
		return "run prestart and createRuntime hooks in the runtime's namespaces"
	case opHook:
		return "run hook " + s.Args[2]
	case opSysctl:
		return fmt.Sprintf("set sysctl %s = %s", s.Args[0], s.Args[1])
	case opCwd:
		return "make directory " + s.Args[0] + " if missing"
	case opHome:
		return fmt.Sprintf("set HOME to the home directory of uid %d", s.Nums[0])
	case opLookup:
		return "find executable " + s.Args[0]
	case opTurn:
		return "let the parent open what is mounted next"
	case opVisit:
		return "take the root along into the mount namespace of others"
	case opReady:
		return "report ready and wait for start"
	case opNoProcess:
		return "fail: there is no process to start"
	case opAffinity:
		if len(s.Nums) > 0 {
			return "bind to CPUs " + s.Args[0]
		}
		return "allow every CPU"
	case opScheduler:
		return s.schedText()
	case opIOPriority:
		return fmt.Sprintf("set I/O priority %s %d", s.Args[0], s.Nums[0]&(1<<ioprioShift-1))
	case opMempolicy:
		return s.memoryText()
	case opPersona:
		return "set personality " + s.Args[0]
	case opLabel:
		return s.labelText()
	case opRlimit:
		return fmt.Sprintf("set %s to %s:%s", s.Args[0], limitText(s.Nums[1]), limitText(s.Nums[2]))
	case opStdio:
		return fmt.Sprintf("give pipes on stdin, stdout and stderr to uid %d", s.Nums[0])
	case opChdir:
		return "change directory to " + s.Args[0]
	case opChdirAgain:
		return "change directory to " + s.Args[0] + " if only the user may"
	case opSeccomp:
		text := fmt.Sprintf("install seccomp filter of %d instructions", len(s.Args[0])/8)
		if s.listens() {
			text += ", hand its listener to " + s.Args[1]
		}
		return text
	case opBounding:
		return "limit bounding capabilities to " + capList(s.Nums[0])
	case opUser:
		return fmt.Sprintf("become uid %d, gid %d, groups %v", s.Nums[0], s.Nums[1], s.Nums[2:])
	case opCaps:
		return fmt.Sprintf("set capabilities: effective %s; permitted %s; inheritable %s", capList(s.Nums[0]), capList(s.Nums[1]), capList(s.Nums[2]))
	case opAmbient:
		return "raise ambient capabilities " + capList(s.Nums[0])
	case opUmask:
		if s.Nums[0] < 0 {
			return "keep the caller's umask"
		}
		return fmt.Sprintf("set umask %04o", s.Nums[0])
	case opNoNewPrivs:
		return "forbid gaining privileges by execve"
	case opLandlock:
		return "forbid writing but to " + strings.Join(s.Args, ", ")
	case opExec:
		return "execute " + strings.Join(s.Args[:s.Nums[0]], " ")
	case opInit:
		return "stay as init, with the process as a child"
	case opProc, opTerminal, opLast:
		return "join the container" // exec prints no plans
	}
	return fmt.Sprintf("operation %d", s.Op)
}

func limitText(n int64) string {
	if n == -1 {
		return "unlimited"
	}
	return strconv.FormatUint(uint64(n), 10)
}
