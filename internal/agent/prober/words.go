package prober

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

// outputLimit is how many bytes of words are kept of a probe.
const outputLimit = 1 << 10

// clip makes text fit to be kept: short, of one encoding, and harmless to terminals.
func clip(text string) string { return cut(clean(text), outputLimit) }

func clean(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD")))
}

const ellipsis = "…"

// cut keeps the beginning of a text.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	end := limit - len(ellipsis)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + ellipsis
}

// cutFront keeps the end of a text.
func cutFront(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	begin := len(text) - limit + len(ellipsis)
	for begin < len(text) && !utf8.RuneStart(text[begin]) {
		begin++
	}
	return ellipsis + text[begin:]
}

// joined puts what was printed behind what happened.
func joined(what, printed string) string {
	if printed == "" {
		return what
	}
	return what + ": " + printed
}

// plain says what went wrong on a connection, without what everybody knows: who dialled where.
func plain(err error, timeout time.Duration) string {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return "no answer within " + timeout.String()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the connection was closed before the answer was complete"
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return err.Error()
}
