package supervisor

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// An image's links and a registry's answers are quoted in errors, and may hold anything. What can be neither recorded nor sent
// would keep all that comes after it from the disk, and the node from the managers.
func TestWhateverAnErrorQuotesItsTaskIsReportedAndRecorded(t *testing.T) {
	hostile := map[string]string{
		"bytes that are no characters": "read /etc/\xff\xfe: not a directory",
		"more than a message may hold": strings.Repeat("é", 3<<20),
	}
	for name, said := range hostile {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t)
				n.runtime.missing["refused"] = errors.New(said)
				n.runtime.missing["tried again"] = Transient(errors.New(said))
				for _, image := range []string{"refused", "tried again"} {
					n.assign(assignment(image, func(a *warrenv1.Assignment) { a.Spec.Container.Image = image }))
				}
				n.assign(assignment("a"))
				refused, again := n.expect("refused", 1, rejected), n.expect("tried again", 1, preparing)
				for _, s := range []*warrenv1.TaskStatus{refused, again} {
					if wire, err := proto.Marshal(s); err != nil || len(wire) > 16<<10 {
						t.Errorf("a status of %d bytes: %v", len(wire), err)
					}
				}
				for _, words := range []string{refused.GetError(), again.GetMessage()} {
					if !utf8.ValidString(words) || len(words) < 20 {
						t.Errorf("the words are %.100q", words)
					}
				}
				n.kill()
				n.start()
				n.expect("refused", 1, rejected)
				n.expect("a", 1, running)
			})
		})
	}
}
