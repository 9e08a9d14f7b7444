package resctrl

import (
	"fmt"
	"strconv"
	"strings"
)

// mismatch says where a class whose schemata file reads have is not what schema asks
// for. What the schema does not mention may be anything.
func mismatch(schema, have string, granularity uint64) error {
	for line := range strings.Lines(schema) {
		name, domains, err := parse(line)
		if err != nil {
			return err
		}
		there, err := find(name, have)
		if err != nil {
			return err
		}
		for id, want := range domains {
			got, ok := there[id]
			if !ok {
				return fmt.Errorf("%q does not match the class, whose %s has no domain %d", strings.TrimSpace(line), name, id)
			}
			if got != want && !(bandwidth(name) && granularity > 0 && got == roundUp(want, granularity)) {
				return fmt.Errorf("%q does not match the class, which has %s for domain %d", strings.TrimSpace(line), format(name, got), id)
			}
		}
	}
	return nil
}

// find returns the domains of a resource in a schemata file.
func find(name, have string) (map[uint64]uint64, error) {
	var others []string
	for line := range strings.Lines(have) {
		n, domains, err := parse(line)
		if err == nil && n == name {
			return domains, nil
		}
		others = append(others, n)
	}
	return nil, fmt.Errorf("the class has no %s; it has %s", name, strings.Join(others, ", "))
}

// parse takes a line "L3:0=7ff;1=7ff" apart.
func parse(line string) (name string, domains map[uint64]uint64, err error) {
	name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
	name, domains = strings.TrimSpace(name), map[uint64]uint64{}
	for part := range strings.SplitSeq(strings.TrimSuffix(rest, ";"), ";") {
		id, value, found := strings.Cut(part, "=")
		n, err := strconv.ParseUint(strings.TrimSpace(id), 10, 32)
		if err == nil {
			domains[n], err = number(name, strings.TrimSpace(value))
		}
		if ok = ok && found && err == nil; !ok {
			return name, nil, fmt.Errorf("%q is not of the form RESOURCE:DOMAIN=VALUE;DOMAIN=VALUE", strings.TrimSpace(line))
		}
	}
	return name, domains, nil
}

// bandwidth says whether the values of a resource are decimal numbers, not bit masks.
func bandwidth(name string) bool { return name == "MB" || name == "SMBA" }

func number(name, value string) (uint64, error) {
	if bandwidth(name) {
		return strconv.ParseUint(value, 10, 64)
	}
	return strconv.ParseUint(strings.TrimPrefix(strings.ToLower(value), "0x"), 16, 64)
}

func format(name string, value uint64) string {
	if bandwidth(name) {
		return strconv.FormatUint(value, 10)
	}
	return strconv.FormatUint(value, 16)
}

func roundUp(n, step uint64) uint64 { return (n + step - 1) / step * step }
