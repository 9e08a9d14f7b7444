package seccomp

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain: the test binary is also the child whose calls are filtered, and the
// program that External runs.
func TestMain(m *testing.M) {
	if os.Args[0] == "husk-seccomp-compiler" {
		fakeCompiler()
	}
	if what := os.Getenv("HUSK_SECCOMP_CHILD"); what != "" {
		child(what)
	}
	os.Exit(m.Run())
}

// testFilter is a filter that is different for every profile.
func testFilter(profile string) *Filter {
	return &Filter{
		BPF: program(errnoOf(28)), Flags: flagLog,
		ListenerPath: "/run/" + fmt.Sprint(sum(0, []byte(profile))), ListenerMetadata: profile, Warnings: []string{"one", "two"},
	}
}

// fakeCompiler does what its profile says. It ends by syscall.Exit: where coverage is
// measured os.Exit would add words of its own.
func fakeCompiler() {
	in, _ := io.ReadAll(os.Stdin)
	if len(os.Environ()) > 0 || len(os.Args) != 1 {
		fmt.Fprintln(os.Stderr, "environment or arguments:", os.Environ(), os.Args)
		syscall.Exit(1)
	}
	switch what, rest, _ := strings.Cut(string(in), " "); what {
	case "compile":
		b, _ := testFilter(string(in)).MarshalBinary()
		_, _ = os.Stdout.Write(b)
	case "complain":
		fmt.Fprint(os.Stderr, rest)
		syscall.Exit(1)
	case "garbage":
		fmt.Print(rest)
	case "hang":
		time.Sleep(time.Minute)
	case "crash":
		panic("crash")
	case "flood":
		b, _ := testFilter("").MarshalBinary()
		_, _ = os.Stdout.Write(append(b, bytes.Repeat([]byte{0}, 1<<20)...))
	}
	syscall.Exit(0)
}
