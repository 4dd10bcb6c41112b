package service

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// A stop refuses new handshakes, ends silent streams, and lets those under way finish.
func TestShutdown(t *testing.T) {
	alpha, beta := startDaemon(t, "alpha.test", Config{}), startDaemon(t, "beta.test", Config{})
	silent, waiting := open(t, beta, ""), open(t, beta, "grpc-c/29")
	waiting.must(t, serverStart(nil, nil))
	c, s := open(t, alpha, ""), open(t, beta, "")
	m1 := c.must(t, clientStart(nil)).OutFrames
	m2 := s.must(t, serverStart(m1, nil)).OutFrames

	done := make(chan error, 1)
	go func() { done <- beta.Shutdown(testContext(t)) }()
	_, err := silent.recv()
	wantErr(t, err, codes.Unavailable, "shutting_down")
	_, err = waiting.recv()
	wantErr(t, err, codes.Unavailable, "shutting_down")

	m3 := c.must(t, next(m2)).OutFrames
	resp := s.must(t, next(m3))
	if c.must(t, next(resp.OutFrames)).Result == nil || resp.Result == nil {
		t.Error("the handshake under way did not finish")
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	h := beta.newSession(Caller{}, func() {}, func() {})
	defer h.end(cancelled())
	_, err = h.step(testContext(t), clientStart(nil))
	if f := asFailure(err); f.rpc != codes.Unavailable {
		t.Errorf("a start after the stop: %v", err)
	}

	// What does not finish is cut.
	c = open(t, alpha, "")
	c.must(t, clientStart(nil))
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	if err := alpha.Shutdown(ctx); err == nil {
		t.Error("Shutdown that had to cut gave no error")
	}
	if _, err := c.recv(); err == nil {
		t.Error("the stream was not cut")
	}
}

func TestNewRefuses(t *testing.T) {
	m := testMachine(t, "alpha.test", testca.Leaf{})
	for name, c := range map[string]Config{
		"no machine":     {},
		"limit":          {Machine: m, Limits: Limits{Streams: -1}},
		"timeout":        {Machine: m, HandshakeTimeout: -1},
		"naming":         {Machine: m, SecureNaming: 7},
		"group":          {Machine: m, PublishGroups: []string{"Bad Group"}},
		"groups":         {Machine: m, PublishGroups: manyNames(100)},
		"no accounts":    {Machine: m, ServerAccounts: []string{}},
		"same and other": {Machine: m, ServerAccounts: []string{"same", "bob"}},
		"account":        {Machine: m, ServerAccounts: []string{"bob@x"}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(Config{Machine: m}); err != nil {
		t.Errorf("the default configuration: %v", err)
	}
}

func manyNames(n int) (names []string) {
	for i := range n {
		names = append(names, "group-with-a-name-that-is-long-"+strings.Repeat("x", i%30)+string(rune('a'+i%26)))
	}
	return names
}
