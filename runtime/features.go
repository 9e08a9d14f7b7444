package runtime

import (
	"slices"
	"strings"

	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/rootfs"
	"github.com/huskrun/husk/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// SupportedFeatures describes what this version of husk does, taken from the tables
// that do it. What it does not do is said as false, not left out: in this document,
// absent means unknown.
func SupportedFeatures() *features.Features {
	yes, no, idmap := true, false, canIDMap()
	return &features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks: []string{
			"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
		},
		MountOptions: rootfs.MountOptions(),
		Linux: &features.Linux{
			Namespaces:   featureNamespaces(),
			Capabilities: capNames[:],
			Cgroup:       &features.Cgroup{V1: &no, V2: &yes, Systemd: &yes, SystemdUser: &yes, Rdma: &yes},
			Seccomp: &features.Seccomp{
				Enabled:        &yes,
				Actions:        seccomp.Actions(),
				Operators:      seccomp.Operators(),
				Archs:          seccomp.Arches(),
				KnownFlags:     seccomp.Flags(),
				SupportedFlags: seccomp.SupportedFlags(),
			},
			Apparmor:        &features.Apparmor{Enabled: &yes},
			Selinux:         &features.Selinux{Enabled: &yes},
			IntelRdt:        &features.IntelRdt{Enabled: &yes, Schemata: &yes, Monitoring: &yes},
			MemoryPolicy:    &features.MemoryPolicy{Modes: words(namesOf(memoryModes)), Flags: words(namesOf(memoryFlags))},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &idmap}},
			NetDevices:      &features.NetDevices{Enabled: &yes},
		},
		Annotations: map[string]string{
			AnnotationNet + "words":     strings.Join(namespaces.Words(), ","),
			AnnotationLandlock + ".abi": landlockUses,
		},
		// The first with the operator's leave: see Runtime.UnitProperties.
		PotentiallyUnsafeConfigAnnotations: []string{unitProperty, AnnotationNet},
	}
}

func words[T ~string](names []T) []string {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = string(n)
	}
	return list
}

func featureNamespaces() []string {
	var names []string
	for _, n := range namespaceNames() {
		names = append(names, string(n))
	}
	slices.Sort(names)
	return names
}

// canIDMap tells whether package rootfs makes id-mapped mounts.
func canIDMap() bool { return slices.Contains(rootfs.MountOptions(), "idmap") }
