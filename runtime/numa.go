package runtime

import (
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var memoryModes = []constant[specs.MemoryPolicyModeType]{
	{specs.MpolDefault, unix.MPOL_DEFAULT},
	{specs.MpolBind, unix.MPOL_BIND},
	{specs.MpolInterleave, unix.MPOL_INTERLEAVE},
	{specs.MpolWeightedInterleave, unix.MPOL_WEIGHTED_INTERLEAVE},
	{specs.MpolPreferred, unix.MPOL_PREFERRED},
	{specs.MpolPreferredMany, unix.MPOL_PREFERRED_MANY},
	{specs.MpolLocal, unix.MPOL_LOCAL},
}

var memoryFlags = []constant[specs.MemoryPolicyFlagType]{
	{specs.MpolFNumaBalancing, unix.MPOL_F_NUMA_BALANCING},
	{specs.MpolFRelativeNodes, unix.MPOL_F_RELATIVE_NODES},
	{specs.MpolFStaticNodes, unix.MPOL_F_STATIC_NODES},
}

// memoryPolicy adds the policy, which goes by what the cpuset allows and is therefore set
// when that is.
func (p *Plan) memoryPolicy(m *specs.LinuxMemoryPolicy) {
	if m == nil {
		return
	}
	flags, words := flagsOf(memoryFlags, m.Flags)
	s := p.add(opMempolicy, "/linux/memoryPolicy", append([]string{string(m.Mode), m.Nodes}, words...)...)
	s.Nums = []int64{int64(valueOf(memoryModes, m.Mode) | flags)}
	if m.Nodes != "" {
		mask, _ := parseList(m.Nodes)
		s.Nums = append(s.Nums, mask...)
	}
}

func (s *Step) memoryText() string {
	text := "set memory policy " + s.Args[0]
	if s.Args[1] != "" {
		text += " of nodes " + s.Args[1]
	}
	if len(s.Args) > 2 {
		text += " (" + strings.Join(s.Args[2:], ", ") + ")"
	}
	return text
}

// setMemoryPolicy sets it for this thread, whose descendants inherit it.
func setMemoryPolicy(s *Step) error {
	mask, bits := unsafe.Pointer(nil), uintptr(0)
	if nodes := s.Nums[1:]; len(nodes) > 0 {
		mask, bits = unsafe.Pointer(&nodes[0]), uintptr(len(nodes)*64+1) // the kernel takes one off
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SET_MEMPOLICY, uintptr(s.Nums[0]), uintptr(mask), bits)
	if errno != 0 {
		return fmt.Errorf("set_mempolicy %s: %w", strings.TrimSpace(s.Args[0]+" "+s.Args[1]), errno)
	}
	return nil
}

// memoryPolicy follows set_mempolicy(2).
func (v *validator) memoryPolicy(m *specs.LinuxMemoryPolicy) {
	const field = "/linux/memoryPolicy"
	oneOf(v, field+"/mode", m.Mode, "a memory policy", namesOf(memoryModes)...)
	for i, f := range m.Flags {
		oneOf(v, item(field+"/flags", i), f, "a memory policy flag", namesOf(memoryFlags)...)
	}
	v.numberList(field+"/nodes", m.Nodes)
	switch m.Mode {
	case specs.MpolDefault, specs.MpolLocal:
		if m.Nodes != "" {
			v.bad(field+"/nodes", "does not go with "+string(m.Mode), "remove it")
		}
	case specs.MpolPreferred: // without nodes it is MPOL_LOCAL
	default:
		if m.Nodes == "" {
			v.bad(field+"/nodes", "is missing, which "+string(m.Mode)+" needs", "write it as in \"0-3,7\"")
		}
	}
	v.memoryFlags(field+"/flags", m)
}

func (v *validator) memoryFlags(field string, m *specs.LinuxMemoryPolicy) {
	static := slices.Contains(m.Flags, specs.MpolFStaticNodes)
	relative := slices.Contains(m.Flags, specs.MpolFRelativeNodes)
	switch {
	case static && relative:
		v.bad(field, "has both MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES", "keep one of them")
	case (static || relative) && m.Nodes == "":
		v.bad(field, "says how to read nodes, of which there are none", "remove MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES")
	}
	balancing := m.Mode == specs.MpolBind || m.Mode == specs.MpolPreferredMany
	if slices.Contains(m.Flags, specs.MpolFNumaBalancing) && !balancing {
		v.bad(field, "has MPOL_F_NUMA_BALANCING, which is for MPOL_BIND and MPOL_PREFERRED_MANY only", "remove it or change the mode")
	}
}
