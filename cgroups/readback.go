package cgroups

import (
	"strings"

	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// Limits reads back what is set: the content of those limit files that differ
// from what a new group has.
func (g *Group) Limits() (map[string]string, error) {
	set := map[string]string{}
	files, err := g.limitFiles()
	if err != nil {
		return nil, g.pathError("list files of", err)
	}
	for _, file := range files {
		text, err := kernfs.Read(g.fd, file)
		if ignoreGone(err) != nil {
			return nil, g.pathError("read "+file+" of", err)
		}
		initial, _ := initially(file)
		if text = limited(file, text); err == nil && text != initial {
			set[file] = text
		}
	}
	return set, nil
}

// limitFiles lists the files of the group that hold limits.
func (g *Group) limitFiles() ([]string, error) {
	dir, err := kernfs.Open(g.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer kernfs.Close(dir)
	files := kernfs.List(dir, func(kind byte, name []byte) bool {
		_, ok := initially(string(name))
		return ok && kind == unix.DT_REG
	})
	return files, nil
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
	return "max", isHugetlbMax(file)
}

func isHugetlbMax(file string) bool {
	return strings.HasPrefix(file, "hugetlb.") && strings.HasSuffix(file, ".max")
}

// noHugetlb is below what hugetlb.SIZE.max shows for "max" until it is written: the
// kernel's PAGE_COUNTER_MAX, in bytes, of which the rest depends on sizes of pages.
const noHugetlb = 1 << 62

// limited is the content of a limit file, without what says that there is none:
// lines for devices and resources, of which some files have one for each that exists.
func limited(file, text string) string {
	text = strings.TrimSuffix(text, "\n")
	switch {
	case isHugetlbMax(file) && parseNumber(text) > noHugetlb:
		return "max"
	case file != "rdma.max" && file != "misc.max":
		return text
	}
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		_, values, _ := strings.Cut(line, " ")
		if strings.ContainsAny(values, "0123456789") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}
