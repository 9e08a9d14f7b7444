package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

// words are the long flags of fs as typed.
func words(fs *flag.FlagSet) (list []string) {
	fs.VisitAll(func(f *flag.Flag) {
		if !isShort(f) {
			list = append(list, "--"+f.Name)
		}
	})
	return list
}

// names are the commands.
func names() (list []string) {
	for _, c := range commands() {
		list = append(list, c.name)
	}
	return list
}

// choices are the words that may follow c: ids of containers come from husk list.
func (c *command) choices() string {
	switch {
	case c.name == "help":
		return strings.Join(names(), " ")
	case strings.HasPrefix(c.args, "ID") && c.name != "create" && c.name != "run":
		return "$(husk list --quiet 2>/dev/null)"
	case strings.Contains(c.args, "|"):
		words, _, _ := strings.Cut(c.args, " ")
		return strings.ReplaceAll(words, "|", " ")
	}
	return ""
}

func bashCompletion(w io.Writer) {
	global := newFlags("husk")
	new(app).globals(global)
	fmt.Fprintf(w, `# bash completion for husk: source <(husk completion bash)
_husk() {
  local cur=${COMP_WORDS[COMP_CWORD]} word words="%s"
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case $word in
`, strings.Join(append(names(), words(global)...), " "))
	for _, c := range commands() {
		fmt.Fprintf(w, "      %s) words=\"%s\"; break ;;\n", c.name,
			strings.TrimSpace(strings.Join(words(c.flags()), " ")+" "+c.choices()))
	}
	fmt.Fprint(w, `    esac
  done
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -o default -F _husk husk
`)
}

func zshCompletion(w io.Writer) {
	global := newFlags("husk")
	new(app).globals(global)
	fmt.Fprint(w, "#compdef husk\n# zsh completion for husk: source <(husk completion zsh)\n_husk() {\n  local word\n  for word in ${words[2,CURRENT-1]}; do\n    case $word in\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "      %s) compadd -- %s; _files; return ;;\n", c.name,
			strings.TrimSpace(strings.Join(words(c.flags()), " ")+" "+c.choices()))
	}
	fmt.Fprintf(w, "    esac\n  done\n  local -a list\n  list=(\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "    %s\n", quote(c.name+":"+c.summary))
	}
	fmt.Fprintf(w, "  )\n  _describe command list\n  compadd -- %s\n}\ncompdef _husk husk\n", strings.Join(words(global), " "))
}

func fishCompletion(w io.Writer) {
	fmt.Fprint(w, "# fish completion for husk: husk completion fish | source\ncomplete -c husk -f\n")
	global := newFlags("husk")
	new(app).globals(global)
	fishFlags(w, global, "__fish_use_subcommand")
	for _, c := range commands() {
		fmt.Fprintf(w, "complete -c husk -n __fish_use_subcommand -a %s -d %s\n", c.name, quote(c.summary))
		seen := quote("__fish_seen_subcommand_from " + c.name)
		fishFlags(w, c.flags(), seen)
		if words := strings.ReplaceAll(c.choices(), "$(", "("); words != "" {
			fmt.Fprintf(w, "complete -c husk -n %s -a %s\n", seen, quote(words))
		}
	}
}

// fishFlags writes one line per flag, for where condition holds.
func fishFlags(w io.Writer, fs *flag.FlagSet, condition string) {
	fs.VisitAll(func(f *flag.Flag) {
		if isShort(f) {
			return
		}
		_, text := flag.UnquoteUsage(f)
		line := "complete -c husk -n " + condition + " -l " + f.Name + " -d " + quote(text)
		if s := shortOf(fs, f.Name); s != "" {
			line += " -s " + s
		}
		if !isBool(f) {
			line += " -r -F"
		}
		fmt.Fprintln(w, line)
	})
}

// quote makes s one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
