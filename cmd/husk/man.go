package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

// manCommand: husk man
func manCommand(*flag.FlagSet) action {
	return func(a *app, _ []string) (int, error) {
		var b strings.Builder
		manual(&b)
		_, err := io.WriteString(a.stdout, b.String())
		return 0, err
	}
}

// manual writes the manual page in the macros of man(7), without a date: the same source
// makes the same page.
func manual(b *strings.Builder) {
	fmt.Fprintf(b, ".TH HUSK 8 \"\" \"husk %s\"\n", roff(release))
	b.WriteString(".SH NAME\nhusk \\- run Linux containers from OCI bundles\n")
	b.WriteString(".SH SYNOPSIS\n.B husk\n[\\fIglobal flags\\fR] \\fICOMMAND\\fR [\\fIflags\\fR] [\\fIarguments\\fR]\n")
	b.WriteString(".SH GLOBAL FLAGS\n")
	global := newFlags("husk")
	new(app).globals(global)
	manualFlags(b, global)
	b.WriteString(".SH COMMANDS\n")
	said := map[string]bool{"": true} // create and run explain the same
	for _, c := range commands() {
		fmt.Fprintf(b, ".SS \"husk %s\"\n%s.\n", roff(c.usage()), roff(sentence(c.summary)))
		manualFlags(b, c.flags())
		text := c.explanation()
		if !said[text] {
			fmt.Fprintf(b, ".PP\n.nf\n%s.fi\n", roff(text))
		}
		said[text] = true
	}
	b.WriteString(".SH EXIT STATUS\nThat of the process for\n.BR run ,\n.BR exec ,\n.B sandbox\nand\n.BR \"seccomp record\" ,\n" +
		"128 and the number of the signal that killed it; 127 when there is no such program, 126 when it cannot be executed, " +
		"255 when exec fails otherwise, 124 when sandbox has ended a job for its time or output, 125 when it fails otherwise. 1 for other errors, 3 for an unknown command.\n")
}

func manualFlags(b *strings.Builder, fs *flag.FlagSet) {
	fs.VisitAll(func(f *flag.Flag) {
		if isShort(f) {
			return
		}
		b.WriteString(".TP\n")
		if s := shortOf(fs, f.Name); s != "" {
			fmt.Fprintf(b, "\\fB\\-%s\\fR, ", s)
		}
		fmt.Fprintf(b, "\\fB\\-\\-%s\\fR", roff(f.Name))
		value, text := flag.UnquoteUsage(f)
		if value != "" && !isBool(f) {
			fmt.Fprintf(b, " \\fI%s\\fR", roff(strings.ToUpper(value)))
		}
		fmt.Fprintf(b, "\n%s.\n", roff(sentence(text)))
	})
}

func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// roff escapes text: a hyphen that is to be typed, a backslash, and what begins a line
// like a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n.", "\n\\&.", "\n'", "\n\\&'").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
