#!/bin/sh
# Runs every fuzz target for FUZZTIME (10s). Without it, tests run the corpora only.
set -eu
cd "$(dirname "$0")/.."
export GOTOOLCHAIN=auto # as in the Makefile, for calls by hand
go list -f '{{.Dir}}' ./... | while read -r dir; do
	grep -hos '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | cut -c 6- | while read -r target; do
		(cd "$dir" && go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-10s}" .)
	done
done
