// Package namespaces makes the processes of containers: it spawns a child in
// new, joined and inherited namespaces and in a cgroup, and holds the
// conversation with it.
package namespaces
