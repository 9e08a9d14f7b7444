package libseccomp

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	scmp "github.com/seccomp/libseccomp-golang"

	"github.com/huskrun/husk/seccomp"
)

// ranges are where architectures have their system calls, relative to their base: the
// common ones, and the private ones of ARM.
var ranges = [][2]uint32{{0, 1000}, {0x0f0000, 0x0f0000 + 16}}

// Calls are the system calls of an architecture that have a name, by number.
func Calls(arch specs.Arch) ([]seccomp.Call, error) {
	t, err := token(arch)
	a, known := seccomp.LookupArch(arch)
	if err == nil && known {
		// The Go package may know more architectures than the library.
		_, err = scmp.GetSyscallFromNameByArch("read", t)
	}
	if err != nil || !known {
		return nil, fmt.Errorf("libseccomp %s does not know %s", Version(), arch)
	}
	var calls []seccomp.Call
	for _, r := range ranges {
		for nr := r[0]; nr < r[1]; nr++ {
			name, err := scmp.ScmpSyscall(a.Base + nr).GetNameByArch(t)
			if err != nil {
				name = nameOfNewer(nr)
			}
			if name != "" {
				calls = append(calls, seccomp.Call{Number: a.Base + nr, Name: name})
			}
		}
	}
	return calls, nil
}

func nameOfNewer(nr uint32) string {
	for _, c := range newer {
		if c.nr == nr {
			return c.name
		}
	}
	return ""
}
