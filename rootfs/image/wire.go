package image

import (
	"encoding/json/v2"
	"time"
)

// Conn is the conversation with the unpacker: messages of a kind, bytes and descriptors,
// which are copied when sent and belong to who received them.
type Conn interface {
	Send(kind byte, payload []byte, fds ...int) error
	Recv(deadline time.Time) (kind byte, payload []byte, fds []int, err error)
}

// The kinds of messages. The unpacker only answers, but for parts of an image that lies
// in a directory, which it may not be allowed to open: it asks while it is working.
const (
	MsgInspect byte = iota + 1 // Request (+archive, else it is a directory); answer: Found
	MsgLayer                   // Layer (+directory, those below it, top first); answer: nothing
	MsgEmpty                   // (+directory); answer: nothing
	MsgPart                    // from the unpacker: a name; answer: nothing (+file)
	MsgBusy                    // from the unpacker: it got on
	MsgDone                    // answers the others
	MsgFailed                  // answers any: Failure
)

// Request asks what an image is.
type Request struct {
	Ref  string // which one, of several
	Arch string // in Go's words
}

// Found is the answer. It comes from whoever made the image.
type Found struct {
	Digest string   // of the manifest; where there is none, of the configuration
	Chains []string // of the layers, bottom first
	Config Config
}

// Config is what an image says of the process to run in it.
type Config struct {
	Env, Entrypoint, Cmd []string
	User, WorkingDir     string
}

// Layer asks for one, by its place.
type Layer struct {
	Index int
	IDs   [2][]Range // users and groups that there are
	Limit int64      // bytes that may be written
}

// Range is one of ids, as the container sees them.
type Range struct{ First, Size uint32 }

// Failure is an error on its way.
type Failure struct{ Text, Hint string }

func (f *Failure) Error() string { return f.Text }

// Encode makes a payload.
func Encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // all of the above can be written
	}
	return b
}

// Decode reads one.
func Decode[T any](payload []byte) (v T, err error) {
	err = json.Unmarshal(payload, &v)
	return v, err
}
