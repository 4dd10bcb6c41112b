package ident

import (
	"bytes"
	"errors"
	"io"
	"strconv"
)

// maxQuery bounds a query: two ports, a comma, blanks, the end of the line.
const maxQuery = 64

var (
	errQuery = errors.New("not a query of RFC 1413")
	errPort  = errors.New("a port that is none")
)

// readLine reads up to the end of the line and not much further, without which it is no query.
func readLine(r io.Reader) ([]byte, error) {
	var buf [maxQuery]byte
	for n := 0; n < len(buf); {
		m, err := r.Read(buf[n:])
		n += m
		if end := bytes.IndexByte(buf[:n], '\n'); end >= 0 {
			return buf[:end], nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, errQuery
}

// parseQuery reads a line without its line feed: the port at this side, a comma, the port at the asker's.
func parseQuery(line []byte) (ours, theirs uint16, err error) {
	first, second, found := bytes.Cut(bytes.TrimSuffix(line, []byte("\r")), []byte(","))
	if !found {
		return 0, 0, errQuery
	}
	if ours, err = parsePort(first); err != nil {
		return 0, 0, err
	}
	if theirs, err = parsePort(second); err != nil {
		return 0, 0, err
	}
	return ours, theirs, nil
}

func parsePort(b []byte) (uint16, error) {
	b = bytes.Trim(b, " \t")
	if len(b) == 0 || bytes.ContainsFunc(b, func(r rune) bool { return r < '0' || r > '9' }) {
		return 0, errQuery
	}
	n, err := strconv.ParseUint(string(b), 10, 16)
	if err != nil || n == 0 {
		return 0, errPort
	}
	return uint16(n), nil
}
