package main

import (
	"encoding/json/jsontext"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/huskrun/husk/runtime/sandbox"
)

func sandboxDetails() string {
	return `The job sees the host's own / but what is hidden of it, and may write to its workspace and,
until it ends, to --size bytes elsewhere. It has no network and no capabilities and cannot
gain any; it ends when husk is killed, and with it whatever it has started. husk exits as
the job did: 128 and the number of a signal that killed it, 126 or 127 if it could not be
executed, 124 if its time or its output was over the limit, 125 if it is husk that failed.

Variables that are kept, besides those of --env:
` + columns(append(sandbox.Kept, "LC_*")) + `
Paths that are hidden where they exist, unless --show names them:
` + columns(sandbox.Hidden)
}

// sandboxCommand: husk sandbox [FLAGS] COMMAND [ARG...]
func sandboxCommand(fs *flag.FlagSet) action {
	var o sandbox.Options
	o.Flags(fs)
	config := fs.String("config", "", "take what the command line does not say from this `file`, whose keys are called like flags (default "+sandbox.ConfigFile+" of the workspace, which cannot loosen anything)")
	print := fs.Bool("print-config", false, "print the config.json that would be run, and do not run it")
	return func(a *app, args []string) (int, error) {
		o.Args, o.Unpacker = args, helper("image-helper")
		if err := o.ReadConfig(fs, *config); err != nil {
			return 0, err
		}
		job, err := sandbox.New(&o)
		if err != nil {
			return 0, err
		}
		if *print {
			text, err := job.Config(jsontext.WithIndent("\t"))
			if err == nil {
				_, err = fmt.Fprintf(a.stdout, "%s\n", text)
			}
			return 0, err
		}
		return a.sandbox(job)
	}
}

// sandbox runs the job, on our terminal if all of its streams are.
func (a *app) sandbox(job *sandbox.Job) (int, error) {
	for _, text := range job.LeftOut {
		fmt.Fprintln(a.stderr, "husk: sandbox: left out: "+text)
	}
	if a.root == "" && !hostRoot() && os.Getenv("XDG_RUNTIME_DIR") == "" {
		a.root = filepath.Join(os.TempDir(), "husk-"+strconv.Itoa(os.Geteuid()))
	}
	a.through = job.Through
	var take func(*os.File) error
	return a.onTerminal(&take, func() (int, error) {
		terminal := take
		if job.Spec.Process.Terminal = job.Interactive() && onTerminals(0, 1, 2); !job.Spec.Process.Terminal {
			terminal = nil
		}
		res, err := job.Run(a.runtime(), terminal)
		if err != nil {
			return 0, err
		}
		if res.Reason != "" {
			fmt.Fprintln(a.stderr, "husk: sandbox: "+res.Reason)
		}
		if job.Summarized() {
			return res.Status, job.Summary(a.stderr, res)
		}
		return res.Status, nil
	})
}
