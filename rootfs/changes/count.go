package changes

import "golang.org/x/sys/unix"

// Count is how much was changed.
type Count struct {
	Files   uint64 // that were made or written to, whatever their kind; directories do not count
	Removed uint64
	Bytes   uint64 // that the files take
}

// Count counts.
func (s *Scratch) Count() (c Count, err error) {
	seen := map[uint64]bool{}
	err = s.Walk(func(e *Entry) error {
		switch {
		case e.Kind() == unix.S_IFDIR:
		case e.Removed:
			c.Removed++
		default:
			c.Files++
			if !seen[e.Stat.Ino] {
				c.Bytes += uint64(e.Stat.Blocks) * 512
			}
			if e.Stat.Nlink > 1 {
				seen[e.Stat.Ino] = true
			}
		}
		return nil
	})
	return c, err
}
