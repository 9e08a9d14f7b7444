package runtime

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// checkJoinedMaps compares the mappings of a config with those of the user namespace
// that it joins. Engines repeat them there, and then they must be the same: whoever
// reads the config would take the container's ids for others than they are.
func (c *creation) checkJoinedMaps() error {
	linux := c.config.Spec.Linux
	joins := slices.ContainsFunc(c.plan.Joined, func(n Joined) bool { return n.Type == specs.UserNamespace })
	if !joins {
		return nil
	}
	if err := sameMap(c.proc.PID, "uid_map", linux.UIDMappings); err != nil {
		return at("/linux/uidMappings", "", err)
	}
	return at("/linux/gidMappings", "", sameMap(c.proc.PID, "gid_map", linux.GIDMappings))
}

func sameMap(pid int, file string, want []specs.LinuxIDMapping) error {
	if len(want) == 0 {
		return nil
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + file)
	if err != nil {
		return err
	}
	have, err := parseMap(string(text))
	if err != nil {
		return err
	}
	if !slices.Equal(have, want) {
		return fmt.Errorf("differ from those of the user namespace that is joined: it has %v", have)
	}
	return nil
}

// parseMap reads uid_map or gid_map.
func parseMap(text string) ([]specs.LinuxIDMapping, error) {
	var maps []specs.LinuxIDMapping
	for line := range strings.Lines(text) {
		var m specs.LinuxIDMapping
		if _, err := fmt.Sscan(line, &m.ContainerID, &m.HostID, &m.Size); err != nil {
			return nil, fmt.Errorf("id map %q: %w", line, err)
		}
		maps = append(maps, m)
	}
	return maps, nil
}
