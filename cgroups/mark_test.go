package cgroups

import "testing"

func TestMark(t *testing.T) {
	path := testPath(t)
	g := mustCreate(t, path)
	if g.Marked() != "" {
		t.Errorf("a new group is marked %q", g.Marked())
	}
	for _, who := range []string{"c1 then", "c2 now"} {
		g.Mark(who)
		again, err := Open(path)
		must(t, err)
		if got := again.Marked(); got != who {
			t.Errorf("marked %q, want %q", got, who)
		}
		again.Close()
	}
	must(t, Remove(path, []string{path}))
	if got := mustCreate(t, path).Marked(); got != "" {
		t.Errorf("the mark %q outlives the group", got)
	}
}
