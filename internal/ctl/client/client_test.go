package client

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/pki"
)

func TestManagersElsewhereAreSpokenToWithACertificateAlone(t *testing.T) {
	for _, c := range []struct {
		options Options
		want    error
		valid   bool
	}{
		{options: Options{Socket: "/run/m.sock"}, valid: true},
		{options: Options{Addrs: []string{"10.0.0.1:7420"}}, want: ErrNoCredentials},
		{options: Options{Addrs: []string{"127.0.0.1:7420"}}, want: ErrNoCredentials},
		{options: Options{Addrs: []string{"10.0.0.1:7420", "[::1]:7420"}, Credentials: &pki.Credentials{}}, valid: true},
		{options: Options{Addrs: []string{"10.0.0.1"}, Credentials: &pki.Credentials{}}},
		{options: Options{Addrs: []string{"10.0.0.1:"}, Credentials: &pki.Credentials{}}},
		{options: Options{Addrs: []string{""}, Credentials: &pki.Credentials{}}},
	} {
		if _, err := New(c.options); (err == nil) != c.valid || c.want != nil && !errors.Is(err, c.want) {
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
