package sandbox

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestDefaultSize: a size of 0 would be a tmpfs without a limit.
func TestDefaultSize(t *testing.T) {
	job, err := New(&Options{Args: []string{"true"}, Workspace: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(job.Spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/" && m.Type == "tmpfs" })
	if i < 0 || !slices.Contains(job.Spec.Mounts[i].Options, "size=1073741824") {
		t.Errorf("the scratch is not limited to 1G: %v", job.Spec.Mounts)
	}
}
