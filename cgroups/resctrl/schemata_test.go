package resctrl

import (
	"strings"
	"testing"
)

func TestMismatch(t *testing.T) {
	const have = "    L3:0=07f;1=7ff\n    MB:0=  30;1= 100\nL3CODE:0=f\n"
	for _, c := range []struct{ schema, want string }{
		{"L3:0=7f;1=7ff", ""},
		{"L3:1=7FF;0=0x7f;", ""}, // order, case, zeros and a semicolon too many are the writer's
		{" L3 : 1 = 7ff", ""},
		{"L3:1=7ff", ""}, // others may be anything
		{"MB:0=21", ""},  // rounded up by the kernel
		{"MB:0=20", "has 30 for domain 0"},
		{"MB:0=31", "has 30 for domain 0"},
		{"L3:0=7e", "has 7f for domain 0"},
		{"L3:0=75", "has 7f for domain 0"}, // masks are not rounded
		{"L3:2=f", "no domain 2"},
		{"L3CODE:0=f\nL3:0=7f", ""},
		{"L3:0=7f\nL3CODE:0=1", "has f for domain 0"},
		{"L2:0=f", "has no L2; it has L3, MB, L3CODE"},
		{"L3:0", "is not of the form"},
		{"L3", "is not of the form"},
		{"L3:0=g", "is not of the form"},
		{"MB:0=f", "is not of the form"},
		{"L3:x=f", "is not of the form"},
	} {
		err := mismatch(c.schema, have, 10)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.schema, err, c.want)
		}
	}
}

func FuzzMismatch(f *testing.F) {
	f.Add("L3:0=f;1=f", "L3:0=f;1=f\nMB:0=100")
	f.Add("MB:0=", "\n:;=")
	f.Fuzz(func(t *testing.T, schema, have string) {
		_ = mismatch(schema, have, 10)
		if !strings.Contains(schema, "\n") && mismatch(schema, schema, 0) == nil && strings.Count(schema, "=") == 0 && schema != "" {
			t.Errorf("%q says nothing and matches", schema)
		}
	})
}
