package client

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestOnlyThisMachineIsSpokenToInPlainText(t *testing.T) {
	for _, c := range []struct {
		options Options
		allowed bool
	}{
		{Options{Host: "127.0.0.1:7400"}, true},
		{Options{Host: "[::1]:7400"}, true},
		{Options{Host: "localhost:7400"}, true},
		{Options{Host: "10.0.0.1:7400"}, false},
		{Options{Host: "10.0.0.1:7400", Insecure: true}, true},
		{Options{Host: "localhost.example.com:7400"}, false},
		{Options{Host: "10.0.0.1", Insecure: true}, false},
		{Options{Host: "127.0.0.1:"}, false},
		{Options{Socket: "/run/m.sock"}, true},
	} {
		if _, err := New(c.options); (err == nil) != c.allowed {
			t.Errorf("%+v: error is %v", c.options, err)
		}
	}
}

func TestAllPagesAreFetchedInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOf(rapid.Int()).Draw(t, "items")
		size := rapid.IntRange(1, 5).Draw(t, "page")
		from := 0
		got, err := pages(func(token string) ([]int, string, error) {
			page := want[from:min(len(want), from+size)]
			from += len(page)
			if from < len(want) {
				return page, "more", nil
			}
			return page, "", nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("got %v (%v), want %v", got, err, want)
		}
	})
}

func TestAPageThatFailsFailsTheList(t *testing.T) {
	broken := errors.New("broken")
	if all, err := pages(func(string) ([]int, string, error) { return nil, "", broken }); !errors.Is(err, broken) || all != nil {
		t.Errorf("got %v, %v", all, err)
	}
}
