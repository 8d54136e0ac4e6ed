package main

import (
	"fmt"
	"net"
	"os"
	"regexp"
)

// answerer is who answers: what every server of this program says.
type answerer struct{ host, version string }

func self() (answerer, error) {
	host, err := os.Hostname()
	return answerer{host: host, version: os.Getenv("VERSION")}, err
}

// to is what a client is told: who answers, and what address it is seen to have.
func (a answerer) to(client string) string {
	if host, _, err := net.SplitHostPort(client); err == nil {
		client = host
	}
	return fmt.Sprintf("hello from %s, version %s, from=%s\n", a.host, a.version, client)
}

var answer = regexp.MustCompile(`^hello from (\S+), version`)

// whoAnswered returns the host that gave an answer.
func whoAnswered(text []byte) (string, error) {
	parts := answer.FindSubmatch(text)
	if parts == nil {
		return "", fmt.Errorf("unexpected answer %.40q", text)
	}
	return string(parts[1]), nil
}
