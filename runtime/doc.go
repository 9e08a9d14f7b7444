// Package runtime runs OCI bundles: it compiles a config.json into a flat plan,
// re-executes the calling program as the container's init, which interprets that
// plan, and keeps the small state that create, start, kill and delete share.
package runtime
