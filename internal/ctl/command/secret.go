package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/cuemby/warren/internal/ctl/failure"
)

// maxSecretBytes bounds a key or a passphrase that is read.
const maxSecretBytes = 4 << 10

// terminal returns the terminal that the user types at, nil where there is none.
func (s *Session) terminal() *os.File {
	f, ok := s.In.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return f
}

// secret asks for one on a terminal, where it is not shown, or reads a line elsewhere.
func (s *Session) secret(ctx context.Context, what string) (string, error) {
	tty := s.terminal()
	if tty == nil {
		return readLine(s.In)
	}
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("ask for the %s: %w", what, err)
	}
	fmt.Fprintf(s.Err, "%s: ", what)
	type answer struct {
		text []byte
		err  error
	}
	typed := make(chan answer, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		typed <- answer{text, err}
	}()
	select {
	case a := <-typed:
		s.Err.Printf("")
		if a.err != nil {
			return "", fmt.Errorf("ask for the %s: %w", what, a.err)
		}
		return string(a.text), nil
	case <-ctx.Done(): // the one who reads is left behind; the program ends
		_ = term.Restore(fd, before)
		s.Err.Printf("")
		return "", failure.ErrInterrupted
	}
}

// answer asks for a line that is shown.
func (s *Session) answer(ctx context.Context, question string) (string, error) {
	fmt.Fprintf(s.Err, "%s ", question)
	type answer struct {
		text string
		err  error
	}
	typed := make(chan answer, 1)
	go func() {
		text, err := bufio.NewReader(io.LimitReader(s.In, maxSecretBytes)).ReadString('\n')
		typed <- answer{text, err}
	}()
	select {
	case a := <-typed:
		if errors.Is(a.err, io.EOF) { // Ctrl-D, which ends no line
			s.Err.Printf("")
			a.err = nil
		}
		return strings.TrimSpace(a.text), a.err
	case <-ctx.Done():
		s.Err.Printf("")
		return "", failure.ErrInterrupted
	}
}

// readLine reads one line, without its end.
func readLine(from io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(from, maxSecretBytes)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// passphraseFile is the flag that says where a passphrase comes from.
type passphraseFile struct {
	PassphraseFile string `help:"File with the passphrase that the backup is encrypted with." placeholder:"PATH" type:"existingfile"`
}

// read returns what the file holds, empty where none was named.
func (p passphraseFile) read() (string, error) {
	if p.PassphraseFile == "" {
		return "", nil
	}
	f, err := os.Open(p.PassphraseFile)
	if err != nil {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSecretBytes))
	if err != nil {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	passphrase := strings.TrimRight(string(text), "\r\n")
	if passphrase == "" {
		return "", failure.Usagef("--passphrase-file %s: it is empty", p.PassphraseFile)
	}
	return passphrase, nil
}

// ask returns the passphrase that an encrypted backup is opened with.
func (p passphraseFile) ask(ctx context.Context, s *Session) (string, error) {
	passphrase, err := p.read()
	if err != nil || passphrase != "" {
		return passphrase, err
	}
	if s.terminal() == nil {
		return "", failure.Usagef("the backup is encrypted: name the file that holds its passphrase with --passphrase-file")
	}
	return s.secret(ctx, "Passphrase")
}

// choosePassphrase has the user make one up.
func (s *Session) choosePassphrase(ctx context.Context) (string, error) {
	if s.terminal() == nil {
		return "", failure.Usagef("--encrypt asks for a passphrase, and there is no terminal to ask on: name a file that holds it with --passphrase-file")
	}
	first, err := s.secret(ctx, "Passphrase")
	if err != nil {
		return "", err
	}
	if first == "" {
		return "", failure.Usagef("an empty passphrase protects nothing")
	}
	second, err := s.secret(ctx, "The same again")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", failure.Usagef("the two are not the same: nothing was done")
	}
	return first, nil
}
