package logs

import (
	"bytes"
	"io"
)

// eachLineBackward calls visit for each whole line of the first size bytes, last line first, with
// where it starts, where the next one does, and its text without the newline, until visit returns
// false. What follows the last newline is no line. The text is valid during the call only.
func eachLineBackward(file io.ReaderAt, size int64, visit func(start, next int64, line []byte) bool) error {
	const block = 64 << 10
	var (
		held  []byte // bytes from offset `from` on that belong to no line visited yet
		from  = size
		next  = int64(-1) // where the line after the one being put together starts; -1 before the last newline
		chunk = make([]byte, block)
	)
	for from > 0 {
		n := min(from, block)
		from -= n
		if read, err := file.ReadAt(chunk[:n], from); int64(read) < n {
			return err
		}
		if next >= 0 && bytes.IndexByte(chunk[:n], '\n') < 0 && len(held) > longestEntry {
			held = held[:0] // none of ours: only where it ends matters
		}
		held = append(append(make([]byte, 0, int(n)+len(held)), chunk[:n]...), held...)
		for {
			end := len(held)
			if next < 0 {
				// Find the last newline of all.
				at := bytes.LastIndexByte(held, '\n')
				if at < 0 {
					held = held[:0]
					break
				}
				next = from + int64(at) + 1
				held = held[:at]
				continue
			}
			at := bytes.LastIndexByte(held[:end], '\n')
			if at < 0 {
				break
			}
			start := from + int64(at) + 1
			if !visit(start, next, held[at+1:]) {
				return nil
			}
			next = start
			held = held[:at]
		}
	}
	if next > 0 {
		visit(0, next, held)
	}
	return nil
}
