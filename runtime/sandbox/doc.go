// Package sandbox runs one command as a job: isolated, limited, timed and accounted for.
//
// It decides nothing that a container needs: it compiles [Options] into a config.json and
// has package runtime run that.
//
//	Options ──Spec──▶ specs.Spec ──runtime.Run──▶ container
//	                      └─ husk sandbox --print-config
//
// What the job sees as "/" is a tmpfs of bounded size, the scratch. Read-only directories
// of the host, or of a root file system that is given, are the lower layers of overlays
// that write there, so that whatever the job changes outside of its workspace ends with
// it. There is always a user namespace, in which the job has one id that is the caller's
// outside, or nobody's if the caller is root (and with capabilities those that are granted
// to the caller): what the caller's id may not read on the
// host, or nobody, the job cannot read either. The rest is in the files:
//
//	options.go  the flags, which are also the keys of the configuration file
//	config.go   the configuration file
//	spec.go     the config.json
//	host.go     the host's own root, and what of it is hidden
//	rootfs.go   another root
//	image.go    the root and the command of an image
//	mounts.go   workspace, binds, tmpfs
//	paths.go    what flags name, where a job may have left links
//	env.go      variables
//	secrets.go  files that only the job can read
//	setid.go    what the default filter forbids beyond husk spec's
//	limits.go   limits, and what can be done without them
//	changes.go  what it has changed, for who wants to keep that
//	run.go      from beginning to end
//	watch.go    limits on time and output
//	progress.go how it is doing, for people
//	report.go   how it ended, for programs and for people
package sandbox
