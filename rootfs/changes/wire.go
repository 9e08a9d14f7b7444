package changes

import (
	"encoding/json/v2"
	"time"
)

// Conn is the conversation with the writer: messages of a kind, bytes and descriptors.
type Conn interface {
	Send(kind byte, payload []byte, fds ...int) error
	Recv(deadline time.Time) (kind byte, payload []byte, fds []int, err error)
}

// The kinds of messages. There is one order, and one answer to it.
const (
	MsgWrite  byte = iota + 1 // Order (+the scratch, a directory to keep in, a file for a layer: those that are asked for)
	MsgBusy                   // it got on
	MsgDone                   // Count
	MsgFailed                 // Failure
)

// Argument makes the program that reads images the writer.
const Argument = "changes"

// Order is what to write.
type Order struct {
	Scratch
	Empty        bool // nothing: the directory that comes second is to be emptied
	Keep, Export bool
	IDs          [2][]Range // of users and groups
	Chown        bool       // files that are kept belong to whom they belong to in the container
	Limit        int64      // bytes of content in the layer, holes included
}

// Range is one of ids: what the writer sees, and what the container does.
type Range struct{ Seen, Inside, Size uint32 }

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
