package logs

import (
	"bytes"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// longestText is where a line of output is cut: the rest becomes the next entry.
const longestText = 16 << 10

// longestEntry is more than any entry takes on disk, header and newline included.
const longestEntry = longestText + 128

// timeLayout has all nine digits, so that entries sort as text and headers are of one length.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

// entry is one line of a file. Its text is only valid until the buffer it was parsed from changes.
type entry struct {
	time    time.Time
	stream  warrenv1.OutputStream
	partial bool
	text    []byte
}

func streamName(stream warrenv1.OutputStream) string {
	if stream == warrenv1.OutputStream_OUTPUT_STREAM_STDERR {
		return "stderr"
	}
	return "stdout"
}

// appendTo writes the entry with its newline. The text holds none.
func (e entry) appendTo(buffer []byte) []byte {
	buffer = e.time.UTC().AppendFormat(buffer, timeLayout)
	buffer = append(buffer, ' ')
	buffer = append(buffer, streamName(e.stream)...)
	if e.partial {
		buffer = append(buffer, " P "...)
	} else {
		buffer = append(buffer, " F "...)
	}
	buffer = append(buffer, e.text...)
	return append(buffer, '\n')
}

// parseEntry reads a line without its newline; ok is false where it is none of ours.
func parseEntry(line []byte) (e entry, ok bool) {
	stamp, rest, found := bytes.Cut(line, []byte{' '})
	if !found || len(stamp) > len("2006-01-02T15:04:05.000000000+00:00") {
		return entry{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return entry{}, false
	}
	stream, rest, found := bytes.Cut(rest, []byte{' '})
	if !found {
		return entry{}, false
	}
	e.time = at
	switch string(stream) {
	case "stdout":
		e.stream = warrenv1.OutputStream_OUTPUT_STREAM_STDOUT
	case "stderr":
		e.stream = warrenv1.OutputStream_OUTPUT_STREAM_STDERR
	default:
		return entry{}, false
	}
	if len(rest) < 2 || rest[1] != ' ' || (rest[0] != 'F' && rest[0] != 'P') {
		return entry{}, false
	}
	e.partial = rest[0] == 'P'
	e.text = rest[2:]
	return e, true
}
