package runtime

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/huskrun/husk/namespaces"
)

// What a process said before it ended counts, although it did so between our last look at
// the conversation and the one at the process.
func TestRecvSpokeLast(t *testing.T) {
	conn, theirs, err := namespaces.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	executes := func() error {
		_ = theirs.Send(msgExec, nil)
		_ = theirs.Close()
		return errDied
	}
	var s *signals
	if kind, _, _, err := s.recv(conn, time.Time{}, executes); kind != msgExec || err != nil {
		t.Errorf("kind %d, %v", kind, err)
	}
	if _, _, _, err := s.recv(conn, time.Time{}, executes); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestRecvStalled(t *testing.T) {
	conn, theirs, err := namespaces.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer theirs.Close()
	var s *signals
	if _, _, _, err := s.recv(conn, time.Time{}, func() error { return errDied }); !errors.Is(err, errDied) {
		t.Errorf("of a process that died in silence: %v", err)
	}
}
