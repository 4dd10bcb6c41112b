// Package programs has tests of forwards with unchanged programs, on machines with networks of their own: make interop-programs.
package programs
