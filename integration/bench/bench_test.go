package main

import (
	"encoding/json/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSummarize(t *testing.T) {
	for name, test := range map[string]struct {
		values []float64
		want   cell
	}{
		"none":     {nil, cell{}},
		"one":      {[]float64{7}, cell{7, 7, 7, 1}},
		"even":     {[]float64{4, 1, 3, 2}, cell{1, 2.5, 4, 4}},
		"odd":      {[]float64{9, 1, 5}, cell{1, 5, 9, 3}},
		"ten":      {[]float64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, cell{1, 5.5, 9, 10}},
		"outlier":  {[]float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1000}, cell{1, 1, 1, 10}},
		"eleven":   {[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, cell{2, 6, 10, 11}},
		"unsorted": {[]float64{3, 3, 1, 2}, cell{1, 2.5, 3, 4}},
	} {
		before := append([]float64(nil), test.values...)
		if diff := cmp.Diff(test.want, summarize(test.values)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff(before, test.values); diff != "" {
			t.Errorf("%s: the samples were changed: %s", name, diff)
		}
	}
}

func sampleReport() report {
	r := report{Kernel: "6.18", CPUs: 2, Rounds: 3, Engines: []string{"floor", "husk", "crun", "runc"}, Versions: map[string]string{"crun": "crun version 1"}}
	r.add(map[string]map[string][]float64{
		"run true":     {"floor": {2, 2, 2}, "husk": {6, 5, 7}, "crun": {12, 9, 8}, "runc": {30, 24, 24}},
		"state":        {"husk": {3}, "crun": {3}},
		"sandbox true": {"husk": {12}},
		"bwrap true":   {"husk": {6}},
		"parked RSS":   {"husk": {2000}, "crun": {2200}},
	})
	return r
}

func TestTable(t *testing.T) {
	var out strings.Builder
	r := sampleReport()
	if err := r.table(&out); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		// median (p90) by engine, then husk's ratios: met, missed, not measured
		"run true":                "run true ms  2 (2)  6 (7)  9 (12)  24 (30)  3.00 ≤3  0.67 !0.6  0.25 ≤0.25",
		"state":                   "state ms  -  3 (3)  3 (3)  -  -  1.00 !0.6  -",
		"parked RSS":              "parked RSS kB  -  2000 (2000)  2200 (2200)  -  -  0.91 ≤1  -",
		"kill":                    "kill ms  -  -  -  -  -  -  -",
		"sandbox true/bwrap true": "sandbox true/bwrap true 2.00 !1.5",
		"3 rounds":                "3 rounds, 2 CPUs, Linux 6.18; median (p90)",
		"crun":                    "crun: crun version 1",
	}
	for line := range strings.Lines(out.String()) {
		for start, text := range want {
			if strings.HasPrefix(line, start+" ") || strings.HasPrefix(line, start+",") || strings.HasPrefix(line, start+":") {
				if got := strings.Join(strings.Fields(line), " "); got == strings.Join(strings.Fields(text), " ") {
					delete(want, start)
				}
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("lines missing from the table: %q\n%s", want, out.String())
	}
}

func TestCellText(t *testing.T) {
	for want, c := range map[string]cell{
		"-": {}, "1.25 (2.00)": {1, 1.25, 2, 3}, "250 (300)": {9, 249.8, 300.2, 3}, "5 (6)": {4, 5, 6, 1},
	} {
		if got := c.String(); got != want {
			t.Errorf("%v: %q instead of %q", c, got, want)
		}
	}
}

func TestReportAsJSON(t *testing.T) {
	data, err := json.Marshal(sampleReport())
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sampleReport(), back); diff != "" {
		t.Error(diff)
	}
}

func TestBundle(t *testing.T) {
	spec := `{"process":{"terminal":true,"cwd":"/"},"linux":{"seccomp":{"x":1},"namespaces":[{"type":"user"}],"resources":{"memory":{"limit":1}}}}`
	for profile, want := range map[string]bool{"": false, `{"defaultAction":"SCMP_ACT_ALLOW"}`: true} {
		data, err := bundle([]byte(spec), "/a/b", []byte(profile), "/bin/true")
		if err != nil {
			t.Fatal(err)
		}
		text := string(data)
		if got := strings.Contains(text, "SCMP_ACT_ALLOW"); got != want || strings.Contains(text, `"x"`) {
			t.Errorf("profile %q: %s", profile, text)
		}
		for _, part := range []string{`"terminal":false`, `"args":["/bin/true"]`, `"cgroupsPath":"/a/b"`} {
			if !strings.Contains(text, part) {
				t.Errorf("no %s in %s", part, text)
			}
		}
		for _, part := range []string{`"user"`, "memory"} {
			if strings.Contains(text, part) {
				t.Errorf("%s in %s", part, text)
			}
		}
	}
	if _, err := bundle([]byte(`{}`), "/a", nil); err == nil {
		t.Error("a spec without process was taken")
	}
}

func TestNumber(t *testing.T) {
	const status = "Name:\tx\nThreads:\t5\nRss:            2200 kB\n"
	for key, want := range map[string]float64{"Threads:": 5, "Rss:": 2200} {
		if got, err := number(status, key); err != nil || got != want {
			t.Errorf("%s %v, %v", key, got, err)
		}
	}
	if _, err := number(status, "Pss:"); err == nil {
		t.Error("found what is not there")
	}
}
