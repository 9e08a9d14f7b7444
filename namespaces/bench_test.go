package namespaces

import (
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkSpawn measures from Spawn to the end of a child that does nothing
// (a Go program's start is most of it), and what of it is Spawn itself.
func BenchmarkSpawn(b *testing.B) {
	for name, create := range map[string]uintptr{
		"none": 0,
		"usual": unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID |
			unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP,
		"all":          allNew,
		"all but time": allNew &^ unix.CLONE_NEWTIME,
	} {
		for _, share := range []bool{true, false} {
			b.Run(name+map[bool]string{true: "/shared", false: "/copied"}[share], func(b *testing.B) {
				needRoot(b)
				defer func(was bool) { canShare = was }(canShare)
				canShare = share && canShare
				benchmark(b, config(create))
			})
		}
	}
	b.Run("join", func(b *testing.B) {
		needRoot(b)
		holder := launch(b, config(allNew), "report")
		holder.facts(b)
		benchmark(b, &Config{Join: []Join{{allNew, int(holder.FD.Fd())}}})
	})
}

func benchmark(b *testing.B, c *Config) {
	exe := must(Sealed(new(Config)))
	defer exe.Close()
	c.Exe, c.Args, c.Cgroup = exe, []string{"probe", "exit"}, -1
	var spawning time.Duration
	for b.Loop() {
		parent, theirs := must2(Pair())
		c.Child = theirs
		start := time.Now()
		p, err := Spawn(c)
		if err != nil {
			b.Fatal(err)
		}
		spawning += time.Since(start)
		if _, _, _, err := parent.Recv(soon()); err != io.EOF {
			b.Fatal(err)
		}
		(&child{Process: p, conn: parent}).end()
	}
	b.ReportMetric(float64(spawning.Microseconds())/float64(b.N), "µs-in-Spawn")
}

func BenchmarkRoundTrip(b *testing.B) {
	ch := launch(b, &Config{}, "echo")
	payload := make([]byte, 4096)
	for b.Loop() {
		if err := ch.conn.Send(1, payload); err != nil {
			b.Fatal(err)
		}
		if _, _, _, err := ch.conn.Recv(soon()); err != nil {
			b.Fatal(err)
		}
	}
}
