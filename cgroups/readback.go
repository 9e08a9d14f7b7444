package cgroups

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Limits reads back what is set: the content of those limit files that differ
// from what a new group has.
func (g *Group) Limits() (map[string]string, error) {
	dir, err := openat(g.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, g.pathError("list files of", err)
	}
	defer closeFD(dir)
	set := map[string]string{}
	for _, file := range list(dir, func(kind byte, _ []byte) bool { return kind == unix.DT_REG }) {
		initial, ok := initially(file)
		if !ok {
			continue
		}
		text, err := read(g.fd, file)
		if ignoreGone(err) != nil {
			return nil, g.pathError("read "+file+" of", err)
		}
		if text = limited(file, text); err == nil && text != initial {
			set[file] = text
		}
	}
	return set, nil
}

// initially is what a limit file has in a new group; ok is false for other files.
func initially(file string) (value string, ok bool) {
	switch file {
	case "memory.max", "memory.high", "memory.swap.max", "memory.swap.high", "memory.zswap.max",
		"pids.max", "cgroup.max.depth", "cgroup.max.descendants", "cpu.uclamp.max":
		return "max", true
	case "memory.low", "memory.min", "memory.oom.group", "cpu.idle", "cpu.max.burst":
		return "0", true
	case "cpuset.cpus", "cpuset.mems", "cpuset.cpus.exclusive", "io.max", "io.latency", "rdma.max", "misc.max":
		return "", true
	case "cpu.weight":
		return "100", true
	case "cpu.max":
		return "max 100000", true
	case "cpu.uclamp.min":
		return "0.00", true
	case "cpuset.cpus.partition":
		return "member", true
	case "io.weight", "io.bfq.weight":
		return "default 100", true
	case "io.prio.class":
		return "no-change", true
	case "memory.zswap.writeback":
		return "1", true
	}
	return "max", strings.HasPrefix(file, "hugetlb.") && strings.HasSuffix(file, ".max")
}

// limited leaves out the lines for devices and resources without a limit, of
// files that have one for each that exists.
func limited(file, text string) string {
	if file != "rdma.max" && file != "misc.max" {
		return strings.TrimSuffix(text, "\n")
	}
	var lines []string
	for line := range strings.Lines(text) {
		_, values, _ := strings.Cut(strings.TrimSpace(line), " ")
		for v := range strings.FieldsSeq(values) {
			if !strings.HasSuffix(v, "max") {
				lines = append(lines, strings.TrimSpace(line))
				break
			}
		}
	}
	return strings.Join(lines, "\n")
}
