package main

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

type report struct {
	Time     time.Time         `json:"time"`
	Kernel   string            `json:"kernel"`
	CPUs     int               `json:"cpus"`
	Rounds   int               `json:"rounds"`
	Engines  []string          `json:"engines"`
	Versions map[string]string `json:"versions"`
	Rows     []row             `json:"rows"`
}

type row struct {
	Operation string             `json:"operation"`
	Unit      string             `json:"unit"`
	Cells     map[string]cell    `json:"cells"`  // by engine
	Ratios    map[string]float64 `json:"ratios"` // husk's median by the engine's
}

type cell struct {
	P10    float64 `json:"p10"` // what comes through on a busy machine
	Median float64 `json:"median"`
	P90    float64 `json:"p90"`
	Count  int     `json:"count"`
}

// costs are what one operation takes longer than another one that is measured right before
// or behind it, and the most ms that it may be for husk, whose filter comes from the cache.
var costs = []struct {
	name, with, without string
	most                float64
}{
	{"filter costs", "run true, seccomp", "run true", 0.7},
	{"--net costs more", "run true, --net", "run true, net by hand", 2},
}

// shares are what an operation may take at most of the time of another one.
var shares = []struct {
	name, of string
	most     float64
}{
	{"sandbox true", "bwrap true", 1.5},
	{"sandbox true", "podman run --rm true", 0.2},
}

// operations are the rows in order, with the ratios of husk to the others that
// are to be met (0: none set).
var operations = []struct {
	name, unit        string
	floor, crun, runc float64
}{
	{"run true", "ms", 3, 0.6, 0.25},
	{"run true, seccomp", "ms", 0, 0.6, 0.12},
	{"filter costs", "ms", 0, 0, 0},
	{"run true, --net", "ms", 0, 0, 0},
	{"run true, net by hand", "ms", 0, 0, 0},
	{"--net costs more", "ms", 0, 0, 0},
	{"sandbox true", "ms", 0, 0, 0},
	{"bwrap true", "ms", 0, 0, 0},
	{"podman run --rm true", "ms", 0, 0, 0},
	{"create", "ms", 0, 0.6, 0},
	{"start", "ms", 0, 0.6, 0},
	{"state", "ms", 0, 0.6, 0},
	{"exec true", "ms", 0, 0.6, 0},
	{"exec true, seccomp", "ms", 0, 0.6, 0},
	{"kill", "ms", 0, 0.6, 0},
	{"delete -f", "ms", 0, 0.6, 0},
	{"create + delete -f", "ms", 0, 0.35, 0},
	{"parked RSS", "kB", 0, 1, 0},
	{"parked private dirty", "kB", 0, 1, 0},
	{"parked threads", "", 0, 0, 0},
}

func newReport(engines []string) report {
	r := report{Time: time.Now().UTC(), CPUs: goruntime.NumCPU(), Engines: engines, Versions: map[string]string{}}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		r.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return r
}

// add turns samples[operation][engine] into rows.
func (r *report) add(samples map[string]map[string][]float64) {
	for _, c := range costs {
		samples[c.name] = differences(samples[c.with], samples[c.without])
	}
	for _, op := range operations {
		line := row{Operation: op.name, Unit: op.unit, Cells: map[string]cell{}, Ratios: map[string]float64{}}
		for engine, values := range samples[op.name] {
			line.Cells[engine] = summarize(values)
		}
		for engine, c := range line.Cells {
			if husk := line.Cells["husk"]; engine != "husk" && husk.Count > 0 && c.Median > 0 {
				line.Ratios[engine] = husk.Median / c.Median
			}
		}
		r.Rows = append(r.Rows, line)
	}
}

// differences are those of the samples of each engine, round by round.
func differences(with, without map[string][]float64) map[string][]float64 {
	out := map[string][]float64{}
	for engine, values := range with {
		for i := range min(len(values), len(without[engine])) {
			out[engine] = append(out[engine], values[i]-without[engine][i])
		}
	}
	return out
}

// summarize gives the median, and the smallest values that one and nine in ten do
// not exceed.
func summarize(values []float64) cell {
	n := len(values)
	if n == 0 {
		return cell{}
	}
	v := slices.Sorted(slices.Values(values))
	return cell{P10: v[(n+9)/10-1], Median: (v[(n-1)/2] + v[n/2]) / 2, P90: v[(9*n+9)/10-1], Count: n}
}

// table prints "median (p90)" by engine and husk's ratio to each, with the target
// where one is set and a "!" where it is missed.
func (r *report) table(w io.Writer) error {
	fmt.Fprintf(w, "%d rounds, %d CPUs, Linux %s; median (p90)\n", r.Rounds, r.CPUs, r.Kernel)
	for _, engine := range r.Engines {
		if v := r.Versions[engine]; v != "" {
			fmt.Fprintf(w, "%s: %s\n", engine, v)
		}
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tab, "\n\t%s\thusk/floor\thusk/crun\thusk/runc\n", strings.Join(r.Engines, "\t"))
	for i, line := range r.Rows {
		fmt.Fprint(tab, strings.TrimSpace(line.Operation+" "+line.Unit))
		for _, engine := range r.Engines {
			fmt.Fprintf(tab, "\t%s", line.Cells[engine])
		}
		op := operations[i]
		fmt.Fprintf(tab, "\t%s\t%s\t%s\n", ratio(line.Ratios["floor"], op.floor),
			ratio(line.Ratios["crun"], op.crun), ratio(line.Ratios["runc"], op.runc))
	}
	for _, line := range r.Rows {
		for _, cost := range costs {
			if c := line.Cells["husk"]; line.Operation == cost.name && c.Count > 0 && c.Median > cost.most {
				fmt.Fprintf(tab, "husk's %s %.2f ms !%g\n", cost.name, c.Median, cost.most)
			}
		}
	}
	for _, share := range shares {
		with, of := r.row(share.name).Cells["husk"], r.row(share.of).Cells["husk"]
		if of.Count > 0 {
			fmt.Fprintf(tab, "%s/%s %s\n", share.name, share.of, ratio(with.Median/of.Median, share.most))
		}
	}
	return tab.Flush()
}

func (r *report) row(operation string) row {
	i := slices.IndexFunc(r.Rows, func(l row) bool { return l.Operation == operation })
	return r.Rows[i]
}

func (c cell) String() string {
	switch {
	case c.Count == 0:
		return "-"
	case c.Median < 100 && c.Median != float64(int(c.Median)):
		return fmt.Sprintf("%.2f (%.2f)", c.Median, c.P90)
	}
	return fmt.Sprintf("%.0f (%.0f)", c.Median, c.P90)
}

func ratio(is, limit float64) string {
	switch {
	case is == 0:
		return "-"
	case limit == 0:
		return fmt.Sprintf("%.2f", is)
	case is > limit:
		return fmt.Sprintf("%.2f !%g", is, limit)
	}
	return fmt.Sprintf("%.2f ≤%g", is, limit)
}

func publish(r *report, path string) error {
	if err := r.table(os.Stdout); err != nil {
		return err
	}
	data, err := json.Marshal(r, jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	fmt.Println("\nnumbers:", path)
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
