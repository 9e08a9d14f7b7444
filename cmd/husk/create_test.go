package main

import (
	"strings"
	"testing"

	"github.com/huskrun/husk/namespaces"
	"github.com/huskrun/husk/runtime"
)

// The help of create and run explains every word that --net takes.
func TestNetWords(t *testing.T) {
	for _, command := range []string{"create", "run"} {
		_, out, _ := call(t, "help", command)
		for _, word := range append(namespaces.Words(), "address="+namespaces.AutoAddress) {
			if !strings.Contains(out, "\n  "+word) {
				t.Errorf("no %s in\n%s", word, out)
			}
		}
		if !strings.Contains(out, runtime.AnnotationNet) {
			t.Errorf("no annotation in\n%s", out)
		}
	}
}
