package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/huskrun/husk/runtime"
)

// forwarded are the signals that a foreground run passes on: those by which people
// and supervisors ask a process to do something. SIGWINCH belongs to the terminal.
var forwarded = [...]syscall.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGCONT, syscall.SIGTSTP,
	syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGPOLL, syscall.SIGPROF, syscall.SIGVTALRM, syscall.SIGPWR,
}

// forward passes the signals that we get on to a container until stop is called.
func forward(rt *runtime.Runtime, id string) (stop func()) {
	ch := make(chan os.Signal, 64)
	for _, sig := range forwarded {
		if !signal.Ignored(sig) { // nohup, or a shell's background job
			signal.Notify(ch, sig)
		}
	}
	go func() {
		for sig := range ch {
			pass(rt, id, sig.(syscall.Signal))
		}
	}()
	return func() { signal.Stop(ch) }
}

// pass sends sig to the container. While there is none yet the signal is for us:
// what create has made so far goes as it does when create is killed.
func pass(rt *runtime.Runtime, id string, sig syscall.Signal) {
	if err := rt.Signal(id, sig, false); errors.Is(err, runtime.ErrNotExist) {
		signal.Reset(sig)
		_ = syscall.Kill(os.Getpid(), sig)
	}
}
