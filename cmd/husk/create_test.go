package main

import (
	"strings"
	"testing"

	"github.com/huskrun/husk/namespaces"
)

// The help of --net names every word there is.
func TestNetWords(t *testing.T) {
	_, out, _ := call(t, "help", "create")
	for _, word := range namespaces.Words() {
		if !strings.Contains(out, word+"=") {
			t.Errorf("no %s= in\n%s", word, out)
		}
	}
}
