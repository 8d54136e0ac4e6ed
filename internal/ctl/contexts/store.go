package contexts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Local is the name that stands for the manager on this machine, through its unix socket.
const Local = "local"

// locals are the names for it: Docker's users know it as default.
var locals = []string{Local, "default", "-"}

// IsLocal tells whether a name stands for the manager on this machine.
func IsLocal(name string) bool { return slices.Contains(locals, name) }

// suffix is what context files end with.
const suffix = ".yaml"

// Store is the folder of a user's contexts.
type Store struct{ dir string }

// Open returns the user's own store: warren in the folder for configuration of the operating system
// ($XDG_CONFIG_HOME or ~/.config on Linux). It touches nothing. It fails where the user has no such folder.
func Open() (*Store, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return nil, fmt.Errorf("find the folder of contexts: %w", err)
	}
	return &Store{filepath.Join(dir, "warren")}, nil
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

func checkName(name string) error {
	if IsLocal(name) {
		return fmt.Errorf("the name %s stands for the manager on this machine: choose another", name)
	}
	if !nameForm.MatchString(name) {
		return fmt.Errorf("%q cannot be the name of a context: use letters, digits, dots, dashes and underscores, at most 63", name)
	}
	return nil
}

func (s *Store) folder() string          { return filepath.Join(s.dir, "contexts") }
func (s *Store) note() string            { return filepath.Join(s.dir, "current-context") }
func (s *Store) path(name string) string { return filepath.Join(s.folder(), name+suffix) }
func unknown(name string) error {
	return fmt.Errorf("there is no context %q: `warrenctl context ls` lists them", name)
}
func (s *Store) exists(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	_, err := os.Lstat(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return unknown(name)
	}
	return err
}

// Names lists the contexts by name.
func (s *Store) Names() ([]string, error) {
	entries, err := os.ReadDir(s.folder())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list contexts: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && checkName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Load returns the context of that name.
func (s *Store) Load(name string) (*Context, error) {
	if err := s.exists(name); err != nil {
		return nil, err
	}
	return ReadFile(s.path(name))
}

// Add keeps a context under a name. It fails with fs.ErrExist where the name is taken, unless force says to
// replace what is there.
func (s *Store) Add(name string, c *Context, force bool) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := os.MkdirAll(s.folder(), 0o700); err != nil {
		return fmt.Errorf("keep context %s: %w", name, err)
	}
	if !force && s.exists(name) == nil {
		return fmt.Errorf("context %s: %w: choose another name with --name, or replace it with --force", name, fs.ErrExist)
	}
	return WriteFile(s.path(name), c, force)
}

// Replace writes a context anew that is still there.
func (s *Store) Replace(name string, c *Context) error {
	if err := s.exists(name); err != nil {
		return err
	}
	return WriteFile(s.path(name), c, true)
}

// Remove forgets a context.
func (s *Store) Remove(name string) error {
	if err := s.exists(name); err != nil {
		return err
	}
	if err := os.Remove(s.path(name)); err != nil {
		return fmt.Errorf("remove context %s: %w", name, err)
	}
	return nil
}

// Current returns the name of the context in use, Local where there is none.
func (s *Store) Current() (string, error) {
	text, err := os.ReadFile(s.note())
	if errors.Is(err, fs.ErrNotExist) {
		return Local, nil
	}
	if err != nil {
		return "", fmt.Errorf("find out which context is in use: %w", err)
	}
	name := strings.TrimSpace(string(text))
	if name == "" || IsLocal(name) {
		return Local, nil
	}
	if err := checkName(name); err != nil {
		return "", fmt.Errorf("find out which context is in use: %s: %w", s.note(), err)
	}
	return name, nil
}

// Use makes a context, or Local, the one that commands use.
func (s *Store) Use(name string) error {
	if IsLocal(name) {
		if err := os.Remove(s.note()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("use the manager on this machine: %w", err)
		}
		return nil
	}
	if err := s.exists(name); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return fmt.Errorf("use context %s: %w", name, err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(name + "\n")
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.note())
	}
	if err != nil {
		return fmt.Errorf("use context %s: %w", name, err)
	}
	return nil
}
