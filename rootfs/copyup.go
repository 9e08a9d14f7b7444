package rootfs

import "golang.org/x/sys/unix"

func copyUp(from, to int) error { return unix.ENOSYS }
