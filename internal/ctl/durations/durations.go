package durations

import (
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// form is how a duration is written.
const form = "write it with a unit, as 5s, 2m30s, 1h or 30d"

// Parse reads a duration: Go's form, or a whole number of days (d), weeks (w) or years of 365 days (y). Errors quote
// the text and tell the form.
func Parse(text string) (time.Duration, error) {
	switch text = strings.TrimSpace(text); {
	case text == "":
		return 0, fmt.Errorf("%q is no duration: %s", text, form)
	case text[0] == '-':
		return 0, fmt.Errorf("%q is no duration: none is below zero; %s", text, form)
	}
	if d, known, err := calendar(text); known {
		return d, err
	}
	d, err := time.ParseDuration(text)
	switch {
	case err == nil:
		return d, nil
	case wellFormed(text):
		return 0, tooLong(text)
	}
	return 0, fmt.Errorf("%q is no duration: %s", text, form)
}

// calendar reads a number of days, weeks or years; known tells whether the text is one.
func calendar(text string) (d time.Duration, known bool, err error) {
	unit := map[byte]time.Duration{'d': 24 * time.Hour, 'w': 7 * 24 * time.Hour, 'y': 365 * 24 * time.Hour}[text[len(text)-1]]
	number := text[:len(text)-1]
	if unit == 0 || number == "" || strings.Trim(number, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n > uint64(math.MaxInt64/unit) {
		return 0, true, tooLong(text)
	}
	return time.Duration(n) * unit, true, nil
}

// wellFormed tells whether a text would be a duration if its numbers were small.
func wellFormed(text string) bool {
	_, err := time.ParseDuration(regexp.MustCompile(`[0-9]+`).ReplaceAllString(text, "1"))
	return err == nil
}

func tooLong(text string) error {
	return fmt.Errorf("%q is too long for a duration: the longest is 292y", text)
}

// Flags has every flag that is a time.Duration read by Parse.
func Flags() kong.Option {
	return kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		token := ctx.Scan.Pop()
		text := token.String()
		// A word that begins with a dash is the next flag, and this one's value was forgotten; but -3s is meant as one.
		if token.IsEOL() || !token.IsValue() && (len(text) < 2 || text[1] != '.' && (text[1] < '0' || text[1] > '9')) {
			return fmt.Errorf("a duration is missing: %s", form)
		}
		d, err := Parse(text)
		if err != nil {
			return err
		}
		target.SetInt(int64(d))
		return nil
	}))
}
