// Package race reports whether the race detector is on, which makes a program several times as slow and large.
package race
