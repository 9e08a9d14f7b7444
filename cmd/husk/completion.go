package main

import (
	"flag"
	"io"
	"strings"
)

// completionCommand: husk completion bash|zsh|fish
func completionCommand(*flag.FlagSet) action {
	return func(a *app, args []string) (int, error) {
		var b strings.Builder
		switch args[0] {
		case "bash":
			bashCompletion(&b)
		case "zsh":
			zshCompletion(&b)
		case "fish":
			fishCompletion(&b)
		default:
			return 0, usage("bash, zsh and fish are known", "no completion for %q", args[0])
		}
		_, err := io.WriteString(a.stdout, b.String())
		return 0, err
	}
}
