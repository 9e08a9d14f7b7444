// Empty: it lets the compiler accept the bodyless functions of spawn.go, whose
// bodies are the Go runtime's.
