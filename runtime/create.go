package runtime

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/huskrun/husk/cgroups"
	"github.com/huskrun/husk/cgroups/resctrl"
	"github.com/huskrun/husk/cgroups/systemd"
	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Runtime creates and handles the containers of one state root. The zero value with a
// Root is ready for use. Its methods may be called from several goroutines and
// processes at once; operations on one container exclude each other.
type Runtime struct {
	Root    string           // directory of the containers' state, made if missing (0700)
	Seccomp seccomp.Compiler // compiles filters that are not in the cache; nil: a profile is an error
	Links   io.ReaderAt      // the program of namespaces.Links; nil: a container with network devices is an error
	Log     *slog.Logger     // warnings; nil: discarded
	Cgroups CgroupManager    // who makes the cgroups of new containers; "": Cgroupfs
	// UnitProperties are the properties of their systemd unit that containers may set by
	// annotations org.systemd.property.NAME.
	UnitProperties []string
	// NetAnnotations lets containers make network interfaces by [AnnotationNet]. Engines
	// take annotations from images, too, which are not to have a say in the host's network.
	NetAnnotations bool
}

// CreateOptions are the parts of create and run that the command line decides.
type CreateOptions struct {
	ConsoleSocket string // unix socket that receives the pty master
	PidfdSocket   string // unix socket that receives a pidfd of the container's init
	PidFile       string // file to write the init's pid to
	NoPivot       bool   // MS_MOVE and chroot instead of pivot_root, for an initramfs
	NoNewKeyring  bool   // keep the caller's session keyring
	PreserveFDs   int    // descriptors from 3 on (after LISTEN_FDS) that the process keeps

	// Net makes network interfaces, each NAME:WORDS; see AnnotationNet.
	Net []string

	// Terminal receives the pty master of a container in the foreground; only Run uses
	// it. It must not block.
	Terminal func(master *os.File) error

	// Config is the text of a config.json; nil: that of the bundle, which is otherwise
	// only the directory in which relative paths begin.
	Config []byte
	// Files are put into the directory of the container's state, which only the caller
	// may enter, for mounts to show them; they end with the container.
	Files []File

	// Scratch receives, before the process runs, the directory that overlays with the
	// option scratch write to; only Run uses it.
	Scratch func(dir *os.File) error

	recording  *seccomp.Recording // see Record
	denials    *seccomp.Denials   // see RunOptions
	foreground bool               // Run stays with the process
}

// File is one of [CreateOptions.Files].
type File struct {
	Name string
	Data []byte
	UID  int // who may read it, outside
}

// FilePath is where a file will be.
func (r *Runtime) FilePath(id, name string) string { return r.stateDir(id) + "/" + name }

// Create makes a container from the bundle and leaves its init parked, waiting for
// Start. It returns an *Error whose Field names the config field to blame; a failed
// Create leaves nothing behind. OCI runtime-spec, runtime.md, "Create".
func (r *Runtime) Create(id, bundle string, o CreateOptions) error {
	growStack()
	c, err := r.create(id, bundle, o, false)
	if err == nil {
		err = c.finish(goPark)
		c.keepLinks()
		c.close()
	}
	return wrap("create", id, err)
}

// creation is a container that is being made.
type creation struct {
	*Runtime
	o       CreateOptions
	config  *Config
	plan    *Plan
	entry   *entry
	rec     *record
	group   *cgroups.Group
	rdt     *resctrl.FS        // nil without linux.intelRdt
	manager *systemd.Manager   // of the cgroup, if it is systemd
	extra   []systemd.Property // of its unit, from annotations
	conn    *namespaces.Conn
	proc    *namespaces.Process
	links   *namespaces.Links // changes network links, if there are any to change
	netns   *os.File          // the network namespace that is joined, for them
	pasta   pasta
	signals *signals // caught by a foreground run
	apart   bool     // the init enters its cgroup when it is READY
	end     ending   // of the init, once reaped
}

// create does everything up to READY. On error nothing is left.
func (r *Runtime) create(id, bundle string, o CreateOptions, start bool) (c *creation, err error) {
	c = &creation{Runtime: r, o: o}
	if err := checkID(id); err != nil {
		return nil, err
	}
	if c.config, err = r.load(bundle, o.Config); err != nil {
		return nil, err
	}
	if err := checkConsole(c.config.Spec.Process, o); err != nil {
		return nil, err
	}
	if err = c.compile(id); err == nil {
		err = c.checkLinks()
	}
	if err == nil {
		c.entry, err = r.claim(id)
	}
	if err != nil {
		c.manager.Close()
		return nil, err
	}
	if err = c.make(start); err != nil {
		c.undo()
		c.signals.stop()
		return nil, err
	}
	return c, nil
}

func (r *Runtime) load(bundle string, text []byte) (*Config, error) {
	config, err := loadSpec(bundle, text)
	if err != nil {
		return nil, err
	}
	config.noNet = !r.NetAnnotations
	warnings, err := Validate(config)
	for _, w := range warnings {
		r.warn(w.String())
	}
	return config, err
}

func (r *Runtime) warn(text string) {
	if r.Log != nil {
		r.Log.Warn(text)
	}
}

func (c *creation) compile(id string) error {
	inherit, env, err := inherited(c.o.PreserveFDs)
	if err != nil {
		return err
	}
	told, err := manager()
	if err != nil {
		return err
	}
	c.plan, err = Compile(c.config, id, PlanOptions{
		NoPivot: c.o.NoPivot, NoNewKeyring: c.o.NoNewKeyring, Cgroups: c.Cgroups, Unit: c.connect,
		Inherit: inherit, Env: env, Filter: c.filter, Recording: c.o.recording, Denials: c.o.denials, Net: c.o.Net,
		State: c.stateDir(id), Resolver: hostResolver, Notify: told != "", Scratch: c.o.Scratch != nil,
	})
	if err != nil {
		return err
	}
	for _, w := range append(c.plan.Warnings, c.plan.ungrantable(0)...) {
		c.warn(w)
	}
	c.plan.Spawn.Inherit = inherit
	return nil
}

func (r *Runtime) filter(profile []byte) (*seccomp.Filter, error) {
	// The cache lives in the state root, which the first container makes.
	if fd, err := r.openRoot(true); err == nil {
		_ = unix.Close(fd)
	}
	return seccomp.Load(r.Root, profile, r.Seccomp)
}

// Plan compiles the plan that Create would carry out for a container called after its
// bundle, and touches nothing: it does not even fill the cache of filters. Who makes the
// cgroups and compiles the filters is the Runtime's to say.
func (r *Runtime) Plan(bundle string, o PlanOptions) (*Plan, error) {
	plan, err := r.dryPlan(bundle, o)
	return plan, wrap("plan", "", err)
}

func (r *Runtime) dryPlan(bundle string, o PlanOptions) (*Plan, error) {
	config, err := r.load(bundle, nil)
	if err != nil {
		return nil, err
	}
	o.Cgroups = r.Cgroups
	o.Filter = func(profile []byte) (*seccomp.Filter, error) { return seccomp.Load("", profile, r.Seccomp) }
	id := filepath.Base(config.Bundle)
	o.State, o.Resolver = r.stateDir(id), hostResolver
	return Compile(config, id, o)
}

// checkConsole: a detached terminal needs somebody who takes its master.
func checkConsole(proc *specs.Process, o CreateOptions) error {
	terminal := proc != nil && proc.Terminal
	switch {
	case terminal && o.ConsoleSocket == "" && o.Terminal == nil:
		return &Error{
			Field: "/process/terminal",
			Err:   errors.New("cannot allocate tty if husk will detach without setting console socket"),
			Hint:  "give --console-socket, or set process.terminal to false",
		}
	case o.ConsoleSocket != "" && (!terminal || o.Terminal != nil):
		return &Error{
			Field: "/process/terminal",
			Err:   errors.New("cannot use console socket if husk will not detach or allocate tty"),
			Hint:  "drop --console-socket, or set process.terminal to true and detach",
		}
	}
	return nil
}

// inherited counts the descriptors that the process keeps: those of LISTEN_FDS, if
// they are meant for us, then preserve more. Each must be open, or the process would
// get one of ours in its place.
func inherited(preserve int) (n int, env []string, err error) {
	if preserve < 0 {
		return 0, nil, fmt.Errorf("cannot preserve %d file descriptors", preserve)
	}
	if pid, _ := strconv.Atoi(os.Getenv("LISTEN_PID")); pid == os.Getpid() {
		if n, _ = strconv.Atoi(os.Getenv("LISTEN_FDS")); n > 0 {
			env = []string{"LISTEN_FDS=" + strconv.Itoa(n), "LISTEN_PID=1"}
		}
	}
	n = max(n, 0) + preserve
	return n, env, checkPreserved(n)
}

// checkPreserved makes sure that the n descriptors from 3 on are the caller's.
func checkPreserved(n int) error {
	for fd := 3; fd < 3+n; fd++ {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return &Error{
				Err:  fmt.Errorf("file descriptor %d to preserve is not open", fd),
				Hint: "--preserve-fds N passes descriptors 3 to 2+N of husk's caller (after those of LISTEN_FDS)",
			}
		}
	}
	return nil
}

// make does what changes the host, after the intent record.
func (c *creation) make(start bool) (err error) {
	// What the caller left open must reach neither hooks nor the init.
	if err = unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return os.NewSyscallError("close_range", err)
	}
	if err = c.intend(); err != nil {
		return err
	}
	if err = cmp.Or(c.writeFiles(), c.writeEtc(), c.makeNotify()); err != nil {
		return err
	}
	if err = c.startLinks(); err != nil {
		return err
	}
	if err = c.makeGroup(); err != nil {
		return err
	}
	if err = c.makeClass(); err != nil {
		return err
	}
	if err = c.boot(start); c.stillborn(err) {
		err = c.bootPlaced(start)
	}
	return err
}

// intend writes the record of what is about to be made, before it is made: whoever
// finds it after our death can undo everything.
func (c *creation) intend() error {
	me, err := self()
	if err != nil {
		return err
	}
	spec := c.config.Spec
	root := spec.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(c.config.Bundle, root)
	}
	class, err := c.lookForClass()
	if err != nil {
		return err
	}
	hooks := hooksOf(spec)
	c.rec = &record{
		Version: recordVersion, OCIVersion: spec.Version, ID: c.entry.id, Phase: phaseCreating, Creator: me,
		Bundle: c.config.Bundle, Rootfs: root, Created: time.Now().UTC(), Owner: os.Geteuid(),
		Annotations: spec.Annotations, Cgroup: c.plan.Cgroup, CgroupMade: c.missing(),
		Rdt:       class,
		NoProcess: spec.Process == nil, Poststart: hooks.Poststart, Poststop: hooks.Poststop,
	}
	c.rec.Bridges = c.plan.bridges()
	for _, h := range hooks.StartContainer {
		c.rec.StartHooks = append(c.rec.StartHooks, int(hookTimeout(h)))
	}
	if u := c.plan.Unit; u != nil {
		c.rec.Unit, c.rec.UserUnit = u.Name, u.User
	}
	return c.entry.write(c.rec)
}

// writeFiles: the directory is the caller's alone, so that their names need no care.
func (c *creation) writeFiles() error {
	for _, f := range c.o.Files {
		fd, err := openat(c.entry.fd, f.Name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW, 0o400)
		if err != nil {
			return c.entry.pathError("make", f.Name, err)
		}
		err = writeAll(fd, f.Data)
		if err == nil && f.UID != os.Geteuid() {
			err = unix.Fchown(fd, f.UID, -1)
		}
		_ = unix.Close(fd)
		if err != nil {
			return c.entry.pathError("write", f.Name, err)
		}
	}
	return nil
}

// finish commits: the late limits, the record, the pid file, GO. If it fails nothing is left.
func (c *creation) finish(mode byte) error {
	err := c.commit(mode)
	if err != nil {
		removePidFile(c.o.PidFile, c.proc.PID)
		c.undo()
	}
	return err
}

// commit sends GO before it writes the record: should we die in between, the record
// still says creating, and the next command undoes it all. The other way round it would
// describe a container whose init has followed us into death.
func (c *creation) commit(mode byte) error {
	if err := c.signals.interrupted(); err != nil {
		return err
	}
	if err := c.limitLate(); err != nil {
		return c.diagnose(err)
	}
	init, err := identify(c.proc.PID)
	if err != nil {
		return c.diagnose(err)
	}
	if err := writePidFile(c.o.PidFile, c.proc.PID); err != nil {
		return err
	}
	if err := c.conn.Send(msgGo, []byte{mode}); err != nil {
		return c.diagnose(err)
	}
	c.rec.Init = init
	c.rec.Phase, c.rec.Creator = phaseCreated, process{}
	if err = c.entry.write(c.rec); err != nil {
		c.rec.Phase = phaseCreating // undo is for a create
	}
	return err
}

// undo tears down whatever was made so far.
func (c *creation) undo() {
	c.returnLinks()
	if c.proc != nil {
		_ = unix.PidfdSendSignal(int(c.proc.FD.Fd()), unix.SIGKILL, nil, 0)
		c.reap()
	}
	if c.group != nil {
		c.group.Close()
		c.group = nil
	}
	c.rdt.Close() // its lock is wanted
	if c.rec == nil {
		_ = c.entry.remove()
	} else if err := c.destroy(c.entry, c.rec); err != nil {
		c.warn("clean up after failed create: " + err.Error())
	}
	c.close()
}

// close gives up our descriptors; the container is not concerned.
func (c *creation) close() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
	if c.proc != nil {
		_ = c.proc.FD.Close()
	}
	if c.group != nil {
		c.group.Close()
	}
	if c.netns != nil {
		_ = c.netns.Close()
		c.netns = nil
	}
	c.manager.Close()
	c.rdt.Close()
	c.entry.close()
	c.conn, c.proc, c.group, c.manager = nil, nil, nil, nil
}
