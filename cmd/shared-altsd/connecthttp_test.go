package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/shared-altsd/shared-altsd/altscreds"
)

// Requests at a TCP port of connect --http are passed on if they name it; a browser that was led here by another name begins
// no handshake.
func TestConnectHTTP(t *testing.T) {
	daemon := start(t, single(t)...)
	far := listenFar(t, daemon, "")
	go func() {
		for c := range far.conns {
			go answer(c)
		}
	}()
	p := startConnect(t, nil, far.args("--http", "--listen", "127.0.0.1:0")...)
	addr := listeningAt(t, p)[0]
	get := func(host string) (int, string) {
		r, err := http.NewRequest("GET", "http://"+addr.String()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		return resp.StatusCode, string(body)
	}
	// Not the peer's name either, which the network may have mean this address.
	for _, host := range []string{"evil.example", "a.test", fmt.Sprintf("a.test:%d", addr.Port())} {
		if code, _ := get(host); code != http.StatusMisdirectedRequest {
			t.Errorf("%s: %d", host, code)
		}
	}
	if n := daemon.handshakes(); n != 0 {
		t.Errorf("%d handshakes for them", n)
	}
	for _, host := range []string{addr.String(), fmt.Sprintf("localhost:%d", addr.Port())} {
		if code, body := get(host); code != 200 || body != "hello "+host {
			t.Errorf("%s: %d, %q", host, code, body)
		}
	}
}

// answer answers the requests of one connection.
func answer(c *altscreds.Conn) {
	defer c.Close()
	for r := bufio.NewReader(c); ; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body := "hello " + req.Host
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
}
