package output

import "strconv"

// Colour is a colour of text, by the number of its escape sequence. The zero value is none.
type Colour int

// The colours that carry a meaning.
const (
	Good    Colour = 32
	Warning Colour = 33
	Bad     Colour = 31
	Faint   Colour = 90
	Strong  Colour = 1
)

// palette are the colours that tell things apart and mean nothing: none of those above.
var palette = [...]Colour{36, 35, 34, 96, 95, 94, 92, 93}

// Distinct returns one of the colours that tell things apart, always the same for the same key.
func Distinct(key string) Colour {
	// FNV-1a: short ids that differ in one character spread over the palette.
	h := uint32(2166136261)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return palette[h%uint32(len(palette))]
}

// Paint returns text in colour if the stream may be coloured.
func (s Stream) Paint(c Colour, text string) string {
	if !s.Colour || c == 0 || text == "" {
		return text
	}
	return "\x1b[" + strconv.Itoa(int(c)) + "m" + text + "\x1b[0m"
}
