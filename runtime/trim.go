package runtime

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// getAuxv is the auxiliary vector of the process. The Go runtime keeps it for
// golang.org/x/sys/cpu and others that link to it.
//
//go:linkname getAuxv runtime.getAuxv
func getAuxv() []uintptr

// programHeader is Elf64_Phdr.
type programHeader struct {
	kind, flags                                         uint32
	offset, vaddr, paddr, fileSize, memorySize, aligned uint64
}

// dropProgram gives the pages of the program's code and constants back, of which a
// parked init needs a few and has touched most: they come back from the page cache
// where they are needed. The resident set of the many inits that engines leave parked
// shrinks by more than half.
func dropProgram() {
	const atPhdr, atPhnum = 3, 5
	var first, count uintptr
	for v := getAuxv(); len(v) >= 2; v = v[2:] {
		switch v[0] {
		case atPhdr:
			first = v[1]
		case atPhnum:
			count = v[1]
		}
	}
	if first == 0 {
		return
	}
	headers := unsafe.Slice((*programHeader)(unsafe.Add(nil, first)), count)
	base := loadBase(headers, first)
	for _, h := range headers {
		const ptLoad, writable = 1, 2
		if h.kind == ptLoad && h.flags&writable == 0 {
			page := base + uintptr(h.vaddr)&^4095
			_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, page, uintptr(h.memorySize)&^4095, unix.MADV_DONTNEED)
		}
	}
}

// loadBase is where a position-independent program lies; 0 for any other.
func loadBase(headers []programHeader, first uintptr) uintptr {
	for _, h := range headers {
		const ptPhdr = 6
		if h.kind == ptPhdr {
			return first - uintptr(h.vaddr)
		}
	}
	return 0
}
