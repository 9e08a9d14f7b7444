package main

import (
	"flag"

	"github.com/huskrun/husk/runtime/sandbox"
)

// command is one row of the table that dispatch, help and completion are made from.
type command struct {
	name    string
	args    string // as shown in help: ID in capitals, optional ones in brackets
	summary string
	min     int           // fewest positional arguments
	max     int           // most of them, -1: any number
	details string        // what help says beyond the flags
	more    func() string // the same, where it is made from tables
	mixed   bool          // flags may also stand between and after the arguments
	failed  int           // exit status of a failure, 0: exitError
	// setup defines the command's flags and returns what runs once they are parsed.
	// Help and completion call it for the flags alone.
	setup func(*flag.FlagSet) action
}

// action does the work. A status other than 0 without an error is the container's.
type action func(a *app, args []string) (status int, err error)

// commands is a function because help and completion are rows of the table they read.
func commands() []command {
	return []command{
		{name: "create", args: "ID", summary: "create a container from a bundle", min: 1, max: 1, setup: createCommand, details: netDetails},
		{name: "start", args: "ID", summary: "start the process of a created container", min: 1, max: 1, setup: startCommand},
		{name: "run", args: "ID", summary: "create and start a container, and wait for it", min: 1, max: 1, setup: runCommand, details: netDetails},
		{name: "sandbox", args: "[COMMAND [ARG...]]", summary: "run a command isolated, limited and timed, as any user", max: -1, setup: sandboxCommand, more: sandboxDetails, failed: sandbox.StatusFailed},
		{name: "exec", args: "ID COMMAND [ARG...]", summary: "execute a further process in a container", min: 1, max: -1, setup: execCommand},
		{name: "state", args: "ID", summary: "print a container's state as JSON", min: 1, max: 1, setup: stateCommand},
		{name: "list", summary: "list the containers of this state root", setup: listCommand},
		{name: "ps", args: "ID [PS OPTION...]", summary: "list the processes of a container", min: 1, max: -1, setup: psCommand},
		{name: "events", args: "ID", summary: "print what a container uses, and what the kernel kills in it", min: 1, max: 1, setup: eventsCommand},
		{name: "update", args: "ID", summary: "change the limits of a container", min: 1, max: 1, setup: updateCommand},
		{name: "kill", args: "ID [SIGNAL]", summary: "send a signal, TERM unless named, to a container", min: 1, max: 2, setup: killCommand},
		{name: "pause", args: "ID", summary: "freeze all processes of a container", min: 1, max: 1, setup: pauseCommand},
		{name: "resume", args: "ID", summary: "let a paused container run on", min: 1, max: 1, setup: resumeCommand},
		{name: "delete", args: "ID", summary: "remove what create made for a container", min: 1, max: 1, setup: deleteCommand},
		{name: "spec", args: "[COMMAND [ARG...]]", summary: "write a config.json that runs out of the box", max: -1, setup: specCommand},
		{name: "plan", args: "[BUNDLE]", summary: "print what create would do, step by step, doing none of it", max: 1, setup: planCommand},
		{name: "seccomp", args: "check|record PATH", summary: "explain a seccomp profile, or make one from a run", min: 2, max: 2, setup: seccompCommand, details: seccompDetails, mixed: true},
		{name: "features", summary: "print what this build supports, as the OCI features JSON", setup: featuresCommand},
		{name: "version", summary: "print the versions of husk and of what it is built with", setup: versionCommand},
		{name: "completion", args: "bash|zsh|fish", summary: "print a completion script for a shell", min: 1, max: 1, setup: completionCommand},
		{name: "man", summary: "print the manual page", setup: manCommand},
		{name: "help", args: "[COMMAND]", summary: "explain a command", max: 1, setup: helpCommand},
	}
}

// find returns the command called name, or nil.
func find(name string) *command {
	for _, c := range commands() {
		if c.name == name {
			return &c
		}
	}
	return nil
}
