// Report reads the output of go test -json and says in few lines what matters: each
// package, what failed with its output, what was skipped and why, and the sums.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

type event struct{ Action, Package, ImportPath, Test, Output string }

type summary struct {
	output                  map[string]string // of each test, package or build
	passed, failed, skipped int
	broken                  []string            // tests and packages
	why                     map[string][]string // skipped tests by reason
}

func main() {
	s := summary{output: map[string]string{}, why: map[string][]string{}}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 64<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text()) // not from a test: go itself
			continue
		}
		s.add(e)
	}
	if !s.print() {
		os.Exit(1)
	}
}

func (s *summary) add(e event) {
	key := cmp.Or(e.Package, e.ImportPath) + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		s.output[key] += e.Output
	case "pass", "fail", "skip":
		s.end(e, key)
	case "build-fail":
		s.fail(key)
	}
}

func (s *summary) end(e event, key string) {
	if e.Test == "" {
		fmt.Printf("%-5s %s\n", e.Action, e.Package)
	}
	switch {
	case e.Action == "fail":
		if e.Test != "" {
			s.failed++
		}
		s.fail(key)
	case e.Test == "":
	case e.Action == "pass":
		s.passed++
	case e.Action == "skip":
		s.skipped++
		reason := s.reason(key)
		s.why[reason] = append(s.why[reason], e.Test)
	}
	delete(s.output, key)
}

// reason finds what a test gave to t.Skip.
func (s *summary) reason(key string) string {
	reason := "no reason given"
	for line := range strings.Lines(s.output[key]) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "--- ") || strings.HasPrefix(line, "=== ") {
			continue
		}
		if i := strings.LastIndex(line, ".go:"); i >= 0 {
			_, reason, _ = strings.Cut(line[i+len(".go:"):], ": ")
		}
	}
	return reason
}

func (s *summary) fail(key string) {
	s.broken = append(s.broken, key)
	fmt.Printf("\n--- FAILED %s\n%s\n", key, s.output[key])
}

// print says what was left out, and the sums in a form that others count. It reports
// whether all is well; a run without any test is not.
func (s *summary) print() bool {
	reasons := make([]string, 0, len(s.why))
	for reason := range s.why {
		reasons = append(reasons, reason)
	}
	slices.Sort(reasons)
	for _, reason := range reasons {
		tests := s.why[reason]
		fmt.Printf("LEFT OUT %d: %s: %s\n", len(tests), reason, strings.Join(tests[:min(3, len(tests))], " "))
	}
	for _, key := range s.broken {
		fmt.Println("FAILED", key)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	return len(s.broken) == 0 && s.passed > 0
}
