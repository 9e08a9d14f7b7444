package runtime

import (
	"testing"
	"time"
)

func TestParseForbidden(t *testing.T) {
	const record = `6,9,8,-;audit: type=1326 audit(1700000000.805:91): auid=4294967295 uid=0 gid=0 ses=1 pid=7 comm="x" exe="/x" sig=31 arch=c000003e syscall=83 compat=0 ip=0x1 code=0x80000000` + "\n"
	at := time.Unix(1700000000, 0)
	want := forbidden{0xc000003e, 83}
	for _, pid := range []int{0, 7} {
		if got, ok := parseForbidden(record, pid, at); !ok || got != want {
			t.Errorf("pid %d: %v, %v", pid, got, ok)
		}
	}
	for name, row := range map[string]struct {
		record string
		pid    int
		since  time.Time
	}{
		"another process":         {record, 8, at},
		"before the container":    {record, 7, at.Add(time.Minute)},
		"not killed":              {`6,9,8,-;audit: type=1326 audit(1700000000.805:91): pid=7 sig=0 arch=c000003e syscall=79`, 7, at},
		"another kind":            {`6,9,8,-;audit: type=1300 audit(1700000000.805:91): pid=7 sig=31 arch=c000003e syscall=79`, 7, at},
		"written by a program":    {`12,9,8,-;audit: type=1326 audit(1700000000.805:91): pid=7 sig=31 arch=c000003e syscall=79`, 7, at},
		"without an architecture": {`6,9,8,-;audit: type=1326 audit(1700000000.805:91): pid=7 sig=31 syscall=79`, 7, at},
		"nothing":                 {"", 0, at},
	} {
		if got, ok := parseForbidden(row.record, row.pid, row.since); ok {
			t.Errorf("%s: %v", name, got)
		}
	}
}
