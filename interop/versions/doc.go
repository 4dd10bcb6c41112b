// Package versions holds the tests of the promise of docs/upgrade.md and nothing else: the last release, built from the commit
// that deploy/last-release names, beside what is here, on both sides of the wire and of each local socket, and with each other's
// files; and what is named in logs, metrics, status and exit statuses.
package versions
