// Package suite pins the official validation suite, opencontainers/runtime-tools, and
// what it is built from. It is a module of its own, so that none of this becomes a
// dependency of husk. build.sh builds the suite, failures.txt explains where it is
// wrong, and TestSuite (integration/suite_test.go) runs it.
package suite

import _ "github.com/opencontainers/runtime-tools/validation/util" // what every program uses
