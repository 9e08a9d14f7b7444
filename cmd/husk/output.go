package main

import (
	jsonv1 "encoding/json"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
	"strings"
)

// marshal formats v in the bytes that runc prints: the field tags of the
// specification's types mean what they meant to the first encoding/json.
func marshal(v any, indent string) ([]byte, error) {
	opts := []json.Options{jsonv1.DefaultOptionsV1()}
	if indent != "" {
		opts = append(opts, jsontext.WithIndent(indent))
	}
	data, err := json.Marshal(v, opts...)
	return append(data, '\n'), err
}

func (a *app) printJSON(v any, indent string) error {
	data, err := marshal(v, indent)
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(data)
	return err
}

// columns lists words in lines of moderate length.
func columns(words []string) string {
	var b strings.Builder
	line := 0
	for _, w := range words {
		if line > 0 && line+len(w) > 80 {
			b.WriteString("\n")
			line = 0
		}
		n, _ := fmt.Fprintf(&b, "  %s", w)
		line += n
	}
	return b.String() + "\n"
}
