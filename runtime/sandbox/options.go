package sandbox

import (
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Options is what a job is to be. The zero value of each field is its default.
type Options struct {
	Args []string

	Image    string      // PATH or PATH:NAME of an image
	Store    string      // where images are unpacked
	Unpacker io.ReaderAt // what reads them
	Rootfs   string      // directory with a root file system, "": the host's own
	Size     Bytes       // of the scratch, 0: DefaultSize
	Show     []string    // hidden paths of the host that are not to be hidden

	Workspace string   // directory, "": the current one
	ReadOnly  bool     // the workspace is not to be written to
	Binds     []string // SRC[:DST[:OPTIONS]]
	Caches    []string // the same, made if it is missing
	Tmpfs     []string // DST[:SIZE]

	Memory, Swap, IO Bytes
	CPUs             float64
	Pids, Nofile     uint64
	Timeout, Idle    time.Duration
	Output           Bytes
	BestEffort       bool

	Net     string   // "none", "host", "veth[:WORDS]", "pasta[:WORDS]", "": "none", or with Allow "veth"
	Allow   []string // HOST:PORT[/PROTOCOL] that alone may be reached
	Caps    []string // capabilities that the job has
	Seccomp string   // file with a profile, "unconfined", "": the default profile
	UID     string   // UID[:GID] inside

	Keep   string // directory that what was written outside of the workspace is kept in, "": none
	Export string // file for it as a layer of an image, "": none

	Report   string // file for how the job ended and what it used, "": none
	Progress bool   // show how the job is doing, on a terminal
	Summary  bool   // the same for people

	Env     []string // NAME=VALUE, or NAME alone for the caller's value
	EnvFile []string
	Secrets []string // NAME=FILE or NAME=env:VARIABLE
}

// DefaultSize is that of the scratch.
const DefaultSize = 1 << 30

// Bytes is a size, written with K, M, G or T for powers of 1024.
type Bytes int64

// String writes it with the largest unit of which it is a multiple.
func (b Bytes) String() string {
	for i, unit := range [...]string{"T", "G", "M", "K"} {
		if n := Bytes(1) << (40 - 10*i); b >= n && b%n == 0 {
			return strconv.FormatInt(int64(b/n), 10) + unit
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Set reads one, as flag.Value has it.
func (b *Bytes) Set(s string) error {
	number, shift := strings.TrimSuffix(strings.ToUpper(s), "B"), 0
	if n := len(number); n > 0 {
		if i := strings.IndexByte("KMGT", number[n-1]); i >= 0 {
			number, shift = number[:n-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > (1<<62)>>shift {
		return fmt.Errorf("%q is not a number of bytes, as in 512M", s)
	}
	*b = Bytes(n << shift)
	return nil
}

// Flags defines the flags that set o.
func (o *Options) Flags(fs *flag.FlagSet) {
	list := func(into *[]string, name, text string) {
		fs.Func(name, text+"; may be repeated", func(s string) error { *into = append(*into, s); return nil })
	}
	fs.StringVar(&o.Rootfs, "rootfs", "", "`directory` that the job sees as /, never written to, instead of the host's own root")
	fs.StringVar(&o.Image, "image", "", "image that the job sees as /, `PATH[:NAME]` of an OCI layout directory, an archive of one, or what docker save writes")
	fs.StringVar(&o.Store, "store", "", "`directory` in which images are unpacked, once (default /var/cache/husk/images, an ordinary user's ~/.cache/husk/images)")
	o.Size = DefaultSize
	fs.Var(&o.Size, "size", "`bytes` that the job may write outside of the workspace, all of which is thrown away (default 1G)")
	list(&o.Show, "show", "do not hide this `path` of the host")
	fs.StringVar(&o.Workspace, "workspace", "", "`directory` that the job may write to and begins in (default the current one)")
	fs.BoolVar(&o.ReadOnly, "ro", false, "the workspace may only be read")
	list(&o.Binds, "bind", "show a path of the host: `SRC[:DST[:OPTIONS]]`, of which ro and noexec may be options")
	list(&o.Caches, "cache", "show a directory of the host like --bind, `SRC[:DST]`, and make it if it is missing: for caches that survive the job")
	list(&o.Tmpfs, "tmpfs", "mount an empty tmpfs: `DST[:SIZE]`")
	fs.Var(&o.Memory, "memory", "`bytes` of memory at most")
	fs.Var(&o.Swap, "swap", "`bytes` of swap at most, beside --memory (default none)")
	fs.Float64Var(&o.CPUs, "cpus", 0, "`number` of CPUs at most, as in 1.5")
	fs.Uint64Var(&o.Pids, "pids", 0, "`number` of processes and threads at most, husk's init included")
	fs.Var(&o.IO, "io", "`bytes` per second that may be read from, and written to, the workspace's disk")
	fs.Uint64Var(&o.Nofile, "nofile", 0, "`number` of open files of one process at most")
	fs.DurationVar(&o.Timeout, "timeout", 0, "end the job after this `time`, as in 10m")
	fs.DurationVar(&o.Idle, "idle-timeout", 0, "end the job when it has written nothing for this `time`")
	fs.Var(&o.Output, "output-limit", "end the job when it has written more `bytes` than that")
	fs.BoolVar(&o.BestEffort, "best-effort", false, "leave out limits that this machine or user cannot have, and say which")
	fs.StringVar(&o.Net, "net", "", "`network`: none (but lo, the default), host, or with the host's address: veth[:WORDS] for root, pasta[:WORDS] for others; the words are those of husk run --net")
	list(&o.Allow, "allow", "let the job reach `HOST:PORT[/PROTOCOL]`, by --net veth, and nothing else: a name, an address or a network, by tcp or udp (default tcp); names are looked up once and written to /etc/hosts")
	list(&o.Caps, "cap-add", "give the job a `capability`, within its own namespaces; an ordinary user's then has the user's subordinate ids, too (subuid(5))")
	fs.StringVar(&o.Seccomp, "seccomp", "", "`file` with a seccomp profile, or unconfined, instead of husk's default")
	fs.StringVar(&o.UID, "uid", "", "`UID[:GID]` that the job has inside (default the caller's)")
	fs.StringVar(&o.Keep, "keep", "", "keep what the job has changed outside of the workspace in this `directory`, which must be empty or missing, as overlay has it: what it removed are devices 0:0")
	fs.StringVar(&o.Export, "export", "", "write what the job has changed outside of the workspace to this `file`, as a layer of an OCI image (tar)")
	fs.StringVar(&o.Report, "report", "", "write to this `file` how the job ended and what it used, as JSON")
	fs.BoolVar(&o.Progress, "progress", false, "show on standard error, if that is a terminal, how the job is doing: time, CPU time (and how many CPUs that is), memory, processes")
	fs.BoolVar(&o.Summary, "summary", false, "print at the end, in a few lines on standard error, how the job ended and what it used")
	list(&o.Env, "env", "set a variable: `NAME=VALUE`, or NAME for the caller's value")
	list(&o.EnvFile, "env-file", "set the variables in this `file`, one NAME=VALUE a line")
	list(&o.Secrets, "secret", "give the job a file /run/secrets/NAME: `NAME=FILE` or NAME=env:VARIABLE")
}
