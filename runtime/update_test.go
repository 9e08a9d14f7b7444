package runtime

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestParseResources(t *testing.T) {
	got, err := ParseResources([]byte(`{"memory":{"limit":5},"hugepageLimits":[{"pageSize":"2MB","limit":0}],"new":1,"cpu":null}`))
	want := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(int64(5))}, HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB"}}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if got, err := ParseResources([]byte(" {} ")); err != nil || cmp.Diff(&specs.LinuxResources{}, got) != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParseResourcesMistakes(t *testing.T) {
	for text, want := range map[string]string{
		``:                                 "/linux/resources: is empty",
		`{`:                                "/linux/resources: is not JSON",
		`[]`:                               "/linux/resources: is an array; write an object",
		`{"memory":{"limit":"1g"}}`:        "/linux/resources/memory/limit: is a string; write a whole number",
		`{"pids":{"limit":1e9}}`:           "/linux/resources/pids/limit: is 1e9; write a whole number",
		`{"memory":{}} {}`:                 "after its closing brace",
		`{"memory":{},"memory":{}}`:        "/linux/resources/memory: appears twice",
		`{"linux":{"resources":{}}}`:       "/linux/resources/linux: is around what is wanted; give the value of /linux/resources alone",
		`{"resources":{"pids":{}}}`:        "/linux/resources/resources: is around what is wanted",
		`{"cpu":{"cpus":3},"rdma":[],"x":`: "/linux/resources/cpu/cpus: is a number; write a string\n/linux/resources/rdma: is an array",
	} {
		_, err := ParseResources([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParseResources(f *testing.F) {
	f.Add([]byte(`{"memory":{"limit":5},"devices":[{"allow":true,"access":"r"}],"unified":{"a.b":"c"}}`))
	f.Add([]byte(`{"linux":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		res, err := ParseResources(data)
		if (res == nil) == (err == nil) {
			t.Errorf("%v and %v", res, err)
		}
	})
}
