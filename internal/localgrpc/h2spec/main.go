// h2spec runs the cases of github.com/summerwind/h2spec against a server and writes their outcome as JUnit's XML. It is a
// module of its own, so that the project's own has none of its dependencies.
package main

import (
	"flag"
	"log"
	"time"

	"github.com/summerwind/h2spec"
	"github.com/summerwind/h2spec/config"
)

func main() {
	port := flag.Int("port", 0, "where the server is, at 127.0.0.1")
	report := flag.String("report", "", "file for the outcome")
	flag.Parse()
	_, err := h2spec.Run(&config.Config{
		Host: "127.0.0.1", Port: *port, Path: "/", Timeout: 2 * time.Second, MaxHeaderLen: 4000, JUnitReport: *report,
		Sections: flag.Args(),
	})
	if err != nil {
		log.Fatal(err)
	}
}
