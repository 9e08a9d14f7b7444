package cgroups

import (
	"github.com/huskrun/husk/cgroups/internal/kernfs"
	"golang.org/x/sys/unix"
)

// The extended attribute that says whose a group is: one that a container which manages
// its own group cannot change; for an ordinary user, to whom it all belongs anyway, one of
// the kind that users have (Linux 5.7).
var markNames = [...]string{"trusted.husk", "user.husk"}

// Mark says on the group itself whose it is, until it is removed. A path alone does not:
// when a container has ended, another one may be given the same.
func (g *Group) Mark(who string) {
	for _, name := range markNames {
		if kernfs.Retry(func() error { return unix.Fsetxattr(g.fd, name, []byte(who), 0) }) == nil {
			return
		}
	}
}

// Marked returns what the last Mark said, "" if none did.
func (g *Group) Marked() string {
	buf := make([]byte, 512)
	for _, name := range markNames {
		if n, err := unix.Fgetxattr(g.fd, name, buf); err == nil {
			return string(buf[:n])
		}
	}
	return ""
}
