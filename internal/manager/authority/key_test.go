package authority

import (
	"fmt"
	"testing"
)

func TestWhatIsSealedForOnePurposeOpensForNoOther(t *testing.T) {
	k := NewKey()
	sealed, err := k.Seal("one", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := k.Open("one", sealed); err != nil || string(text) != "secret" {
		t.Errorf("opened as %q, %v", text, err)
	}
	if _, err := k.Open("two", sealed); err == nil {
		t.Error("it opens for another purpose")
	}
	if _, err := NewKey().Open("one", sealed); err == nil {
		t.Error("it opens by another key")
	}
	for i := range sealed {
		broken := append([]byte{}, sealed...)
		broken[i] ^= 1
		if _, err := k.Open("one", broken); err == nil {
			t.Errorf("it opens with byte %d changed", i)
		}
	}
	if _, err := (Key{}).Seal("one", nil); err == nil {
		t.Error("no key seals")
	}
}

func TestAKeyDoesNotPrint(t *testing.T) {
	k := NewKey()
	for _, f := range []string{"%v", "%+v", "%#v", "%s"} {
		if said := fmt.Sprintf(f, k); said != "the cluster's key" {
			t.Errorf("%s prints %q", f, said)
		}
	}
}
