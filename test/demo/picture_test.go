//go:build linux

package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func TestThePictureHasEveryLineAndPlaysItInOrder(t *testing.T) {
	at := time.Unix(0, 0)
	r := &recorder{now: func() time.Time { return at }}
	fmt.Fprintf(r, "\n\x1b[36m── A & B\x1b[0m\n")
	at = at.Add(100 * time.Millisecond)
	fmt.Fprintf(r, "\x1b[32mm1 #\x1b[0m \x1b[1mls <x>\x1b[0m\n")
	at = at.Add(time.Hour) // nobody waits for it
	fmt.Fprintf(r, "done\n")
	got := picture(r.lines)
	for _, want := range []string{
		`<tspan class="c">── A &amp; B</tspan>`, `<tspan class="g">m1 #</tspan> <tspan class="b">ls &lt;x&gt;</tspan>`, ">done</text>",
		`dur="6.00s"`, fmt.Sprintf(`values="0 %d;0 %d;0 %d"`, 30*lineHeight, 29*lineHeight, 28*lineHeight), `keyTimes="0.00000;0.01667;0.16667"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	for decoder := xml.NewDecoder(strings.NewReader(got)); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
