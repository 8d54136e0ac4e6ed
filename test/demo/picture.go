//go:build linux

package main

import (
	"bytes"
	"fmt"
	"html"
	"regexp"
	"strings"
	"sync"
	"time"
)

// recorder keeps the lines that a demo prints, and when.
type recorder struct {
	mu      sync.Mutex
	now     func() time.Time
	partial bytes.Buffer
	lines   []recorded
}

type recorded struct {
	at   time.Time
	text string // with escape sequences for colours
}

// Write implements io.Writer.
func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range p {
		if b != '\n' {
			r.partial.WriteByte(b)
			continue
		}
		r.lines = append(r.lines, recorded{r.now(), r.partial.String()})
		r.partial.Reset()
	}
	return len(p), nil
}

// The picture: a terminal of so many rows, in pixels.
const (
	rows, lineHeight, margin = 32, 18, 12
	width, height            = 960, rows*lineHeight + 2*margin
	// longestPause is what is left of a longer one, lastPause how long the end stays before it begins anew.
	longestPause, lastPause = 900 * time.Millisecond, 5 * time.Second
)

// picture draws what was recorded as an SVG that plays it, line by line, as fast as it was or faster. Where nothing plays
// it shows the end.
func picture(lines []recorded) string {
	var places, times, text strings.Builder
	played := make([]time.Duration, len(lines))
	for i := 1; i < len(lines); i++ {
		played[i] = played[i-1] + min(lines[i].at.Sub(lines[i-1].at), longestPause)
	}
	total := lastPause
	if len(lines) > 0 {
		total += played[len(lines)-1]
	}
	place := 0
	for i, line := range lines {
		place = (rows - i - 1) * lineHeight
		if i == len(lines)-1 || played[i+1] > played[i] { // of those that come at once the last counts
			fmt.Fprintf(&places, "0 %d;", place)
			at := played[i]
			if times.Len() == 0 {
				at = 0
			}
			fmt.Fprintf(&times, "%.5f;", at.Seconds()/total.Seconds())
		}
		fmt.Fprintf(&text, "<text y=\"%d\">%s</text>\n", (i+1)*lineHeight-5, coloured(token.ReplaceAllString(line.text, "WRNTKN-1-…")))
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]d" width="%[1]d" height="%[2]d" xml:space="preserve" font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="13" fill="#d8dee9">
<style>.b{font-weight:bold}.g{fill:#a3be8c}.c{fill:#88c0d0}.d{fill:#7b8394}</style>
<rect width="%[1]d" height="%[2]d" rx="8" fill="#20242d"/>
<svg x="%[3]d" y="%[3]d" width="%[4]d" height="%[5]d">
<g transform="translate(0 %[6]d)">
<animateTransform attributeName="transform" type="translate" calcMode="discrete" repeatCount="indefinite" dur="%.2[7]fs" values="%[8]s" keyTimes="%[9]s"/>
%[10]s</g>
</svg>
</svg>
`, width, height, margin, width-2*margin, rows*lineHeight, place, total.Seconds(),
		strings.TrimSuffix(places.String(), ";"), strings.TrimSuffix(times.String(), ";"), text.String())
}

var (
	token   = regexp.MustCompile(`WRNTKN-1-\S+`) // wider than the picture
	colour  = regexp.MustCompile("\x1b\\[(\\d+)m")
	classes = map[string]string{"1": "b", "2": "d", "32": "g", "36": "c"}
)

// coloured is a line with its escape sequences as elements of SVG.
func coloured(line string) string {
	var out strings.Builder
	open := false
	for {
		at := colour.FindStringSubmatchIndex(line)
		if at == nil {
			break
		}
		out.WriteString(html.EscapeString(line[:at[0]]))
		if open {
			out.WriteString("</tspan>")
			open = false
		}
		if class := classes[line[at[2]:at[3]]]; class != "" {
			fmt.Fprintf(&out, `<tspan class="%s">`, class)
			open = true
		}
		line = line[at[1]:]
	}
	out.WriteString(html.EscapeString(line))
	if open {
		out.WriteString("</tspan>")
	}
	return out.String()
}
