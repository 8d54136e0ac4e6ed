package numbers

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// Flags has every flag and argument that is a number read in this package's words.
func Flags() kong.Option {
	return kong.OptionFunc(func(k *kong.Kong) error {
		return errors.Join(
			kong.KindMapper(reflect.Uint32, whole(32)).Apply(k),
			kong.KindMapper(reflect.Uint64, whole(64)).Apply(k),
			kong.KindMapper(reflect.Float64, fraction()).Apply(k),
		)
	})
}

// whole reads a whole number of 0 or more.
func whole(bits int) kong.Mapper {
	return kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		text, err := value(ctx)
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(text, 10, bits)
		switch {
		case errors.Is(err, strconv.ErrRange):
			return fmt.Errorf("%q is too large: the largest is %d", text, n)
		case err != nil:
			return fmt.Errorf("%q is not a whole number of 0 or more", text)
		}
		target.SetUint(n)
		return nil
	})
}

func fraction() kong.Mapper {
	return kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		text, err := value(ctx)
		if err != nil {
			return err
		}
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number such as 0.25", text)
		}
		target.SetFloat(n)
		return nil
	})
}

// value takes the next word. One that begins with a dash is the next flag, but -1 is meant as a number.
func value(ctx *kong.DecodeContext) (string, error) {
	token := ctx.Scan.Pop()
	text := token.String()
	if token.IsEOL() || !token.IsValue() && strings.Trim(text, "-.0123456789") != "" {
		return "", errors.New("a number is missing")
	}
	return text, nil
}
