package sandbox

import (
	"slices"
	"strings"
	"testing"
)

// The names of as many layers as an image may have are all different, and fit into what
// fsconfig(2) takes for one option.
func TestShortName(t *testing.T) {
	var names []string
	for i := range 100 {
		names = append(names, shortName(i))
	}
	if n := len(strings.Join(names, ":")); n > 255 {
		t.Errorf("%d bytes", n)
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != 100 || names[0] != "A" || !slices.Contains(names, "aa") {
		t.Error(names)
	}
}
