package rootfs

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A user namespace may make no device nodes, and the host's have the host's owner and
// mode. Where others are asked for, the parent makes a node that has them, in a tmpfs
// of its own.

// ownNode has a device that would be the host's made by the parent, if the container's
// owner is somebody there.
func (c *compiler) ownNode(s *Step) {
	uid, known := onHostID(c.linux.UIDMappings, s.UID)
	gid, knownGroup := onHostID(c.linux.GIDMappings, s.GID)
	if !c.Privileged || !known || !knownGroup {
		return
	}
	s.UID, s.GID, s.Data = uid, gid, c.context()
	s.Flags |= FlagNode
}

// onHostID translates an id of the user namespace.
func onHostID(maps []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + (id - m.ContainerID), true
		}
	}
	return 0, false
}

// nodeName is what the node is called in its tmpfs.
const nodeName = "node"

// openNode makes the node. Before Linux 6.15 it is left in its tmpfs: see attached.
func (s *Step) openNode() (int, error) {
	data := append(s.Data[:len(s.Data):len(s.Data)], "size=4k", "nr_inodes=4", "mode=755")
	fd, err := newMount("tmpfs", "husk-node", data, attrNosuid|attrNoexec)
	if err != nil {
		return -1, fact("mount", "tmpfs", err)
	}
	switch err := s.fillNode(fd); err {
	case nil:
	case unix.EPERM: // we may not either: the host's will have to do
		shut(fd)
		return s.openDevice()
	default:
		shut(fd)
		return -1, fact("mknod", s.Target, err)
	}
	node, err := openTree(fd, nodeName, unix.OPEN_TREE_CLONE)
	if err == unix.EINVAL {
		return fd, nil
	}
	shut(fd)
	return node, fact("open_tree", s.Target, err)
}

// fillNode sets the mode last: a change of owner clears set-id bits, and our umask is
// the caller's.
func (s *Step) fillNode(dir int) error {
	if err := mknodat(dir, nodeName, s.Mode, s.Dev); err != nil {
		return err
	}
	fd, err := openat(dir, nodeName, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer shut(fd)
	if err := fchownat(fd, s.UID, s.GID); err != nil {
		return err
	}
	return fchmodat(dir, nodeName, s.Mode&0o7777)
}

// attached takes the node out of the tmpfs in which it has come.
func (s *Step) attached(fd int) (int, error) {
	if s.isDevice(fd) {
		return fd, nil
	}
	defer shut(fd)
	return cloneAttached(fd, nodeName)
}
