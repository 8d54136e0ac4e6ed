package overlay

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// A program on the node's network may call itself as it likes, and have a published port.
func TestTheStatusCanBeSentWhateverItTellsOf(t *testing.T) {
	for _, said := range []string{"nginx (pid 7)", "\xff\xfe (pid 7)", strings.Repeat("é", 3000), "x" + strings.Repeat("é", 3000)} {
		status := &warrenv1.OverlayStatus{Error: clip(said), TakenPorts: []*warrenv1.TakenPort{{By: head(said, maxProgram)}}}
		if _, err := proto.Marshal(status); err != nil {
			t.Errorf("%.20q: %v", said, err)
		}
		if told := status.GetTakenPorts()[0].GetBy(); len(told) < 8 || len(told) > maxProgram || len(status.GetError()) > maxError+8 {
			t.Errorf("%.20q is told as %q, and as %.20q", said, told, status.GetError())
		}
	}
}
