package specflags

import (
	"encoding/csv"
	"fmt"
	"math/big"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/docker/go-units"
	"github.com/google/shlex"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Memory is an amount of memory: 64m, 512MiB, 1g, or bytes. Units are powers of 1,024.
type Memory int64

// UnmarshalText reads what the user wrote.
func (m *Memory) UnmarshalText(text []byte) error {
	bytes, err := units.RAMInBytes(string(text))
	if err != nil || bytes < 0 {
		return fmt.Errorf("%q is not an amount of memory, such as 64m, 512MiB or 1g", text)
	}
	*m = Memory(bytes)
	return nil
}

// CPUs is a number of processors in billionths: 1.5 is one and a half.
type CPUs int64

// mostCPUs is more than any machine has; managers take no more.
const mostCPUs = 10_000

// UnmarshalText reads what the user wrote.
func (c *CPUs) UnmarshalText(text []byte) error {
	r, ok := new(big.Rat).SetString(string(text))
	if !ok || strings.ContainsAny(string(text), "/eE") {
		return fmt.Errorf("%q is not a number of processors, such as 0.5 or 2", text)
	}
	nano := r.Mul(r, big.NewRat(1e9, 1))
	if !nano.IsInt() || nano.Sign() < 0 || nano.Cmp(big.NewRat(mostCPUs*1e9, 1)) > 0 {
		return fmt.Errorf("%q is not a number of processors: at least 0, at most %d, with at most nine decimals", text, mostCPUs)
	}
	*c = CPUs(nano.Num().Int64())
	return nil
}

// Attempts is a number of restarts, or unlimited (which --restart-max-attempts=unlimited says).
type Attempts struct{ limit *uint32 }

// UnmarshalText reads what the user wrote.
func (a *Attempts) UnmarshalText(text []byte) error {
	if string(text) == "unlimited" {
		a.limit = nil
		return nil
	}
	n, err := strconv.ParseUint(string(text), 10, 32)
	if err != nil {
		return fmt.Errorf("%q is neither a number nor unlimited", text)
	}
	limit := uint32(n)
	a.limit = &limit
	return nil
}

// words splits a command line as a shell does, without expanding anything.
func words(flag, line string) ([]string, error) {
	split, err := shlex.Split(line)
	if err != nil {
		return nil, fmt.Errorf("%s: %q is not a command line: a quote is not closed", flag, line)
	}
	return split, nil
}

// environment reads --env-file files, then --env values; of one key the last value counts, in the
// place of its first. A key without a value takes it from warrenctl's own environment, or is left out
// if that has none.
func environment(files, values []string, lookup func(string) (string, bool)) ([]string, error) {
	var all []string
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--env-file: %w", err)
		}
		// Some editors begin a file with a mark of its encoding.
		text := strings.TrimPrefix(string(content), "\ufeff")
		for n, line := range strings.Split(text, "\n") {
			line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t")
			if line == "" || line[0] == '#' {
				continue
			}
			if key, _, _ := strings.Cut(line, "="); key == "" || strings.ContainsAny(key, " \t") {
				return nil, fmt.Errorf("--env-file: %s line %d: %q is not KEY=VALUE", file, n+1, line)
			}
			if !utf8.ValidString(line) {
				return nil, fmt.Errorf("--env-file: %s line %d: %q is not UTF-8: convert the file", file, n+1, line)
			}
			all = append(all, line)
		}
	}
	for _, value := range values {
		if value == "" || value[0] == '=' {
			return nil, fmt.Errorf("--env: %q is not KEY=VALUE", value)
		}
		all = append(all, value)
	}
	var set []string
	for _, entry := range all {
		if !strings.Contains(entry, "=") {
			value, ok := lookup(entry)
			if !ok {
				continue
			}
			if !utf8.ValidString(value) {
				return nil, fmt.Errorf("--env %s: the value in the environment, %q, is not UTF-8", entry, value)
			}
			entry += "=" + value
		}
		set = putKey(set, entry)
	}
	return set, nil
}

// putKey puts KEY=VALUE into a list, in the place of the key's former value if it has one.
func putKey(list []string, entry string) []string {
	key, _, _ := strings.Cut(entry, "=")
	for i, old := range list {
		if k, _, _ := strings.Cut(old, "="); k == key {
			list[i] = entry
			return list
		}
	}
	return append(list, entry)
}

// pairs reads KEY=VALUE values of a flag; without a = the value is empty.
func pairs(flag string, values []string) (map[string]string, error) {
	if len(values) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(values))
	for _, v := range values {
		key, value, _ := strings.Cut(v, "=")
		if key == "" {
			return nil, fmt.Errorf("%s: %q is not KEY=VALUE", flag, v)
		}
		m[key] = value
	}
	return m, nil
}

// mount reads the value of --mount: comma-separated KEY=VALUE as Docker has them.
func mount(value string) (*warrenv1.Mount, error) {
	fail := func(format string, args ...any) (*warrenv1.Mount, error) {
		return nil, fmt.Errorf("--mount %s: %s", value, fmt.Sprintf(format, args...))
	}
	fields, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return fail("not comma-separated KEY=VALUE, such as type=bind,source=/srv/data,target=/data")
	}
	m := &warrenv1.Mount{}
	for _, field := range fields {
		key, v, valued := strings.Cut(field, "=")
		switch key = strings.ToLower(strings.TrimSpace(key)); key {
		case "type":
			switch strings.ToLower(v) {
			case "bind":
				m.Type = warrenv1.MountType_MOUNT_TYPE_BIND
			case "tmpfs":
				m.Type = warrenv1.MountType_MOUNT_TYPE_TMPFS
			default:
				return fail("type is %q, but can be bind or tmpfs", v)
			}
		case "source", "src":
			m.Source = v
		case "target", "destination", "dst":
			m.Target = v
		case "readonly", "ro":
			m.ReadOnly = true
			if valued {
				if m.ReadOnly, err = strconv.ParseBool(v); err != nil {
					return fail("%s is %q, but can be true or false", key, v)
				}
			}
		case "tmpfs-size":
			if m.TmpfsSizeBytes, err = units.RAMInBytes(v); err != nil || m.TmpfsSizeBytes < 0 {
				return fail("tmpfs-size is %q, which is not an amount of memory such as 64m", v)
			}
		case "tmpfs-mode":
			mode, err := strconv.ParseUint(v, 8, 12)
			if err != nil {
				return fail("tmpfs-mode is %q, which is not permission bits in octal, such as 1777", v)
			}
			m.TmpfsMode = uint32(mode)
		default:
			return fail("%s is not known: type, source, target, readonly, tmpfs-size and tmpfs-mode are", key)
		}
	}
	switch {
	case m.Type == warrenv1.MountType_MOUNT_TYPE_UNSPECIFIED:
		return fail("type is missing: bind or tmpfs")
	case !strings.HasPrefix(m.Target, "/"):
		return fail("target must be an absolute path in the container")
	case m.Type == warrenv1.MountType_MOUNT_TYPE_BIND && !strings.HasPrefix(m.Source, "/"):
		return fail("source must be an absolute path on the node")
	case m.Type == warrenv1.MountType_MOUNT_TYPE_TMPFS && m.Source != "":
		return fail("a tmpfs has no source")
	case m.Type == warrenv1.MountType_MOUNT_TYPE_BIND && (m.TmpfsSizeBytes != 0 || m.TmpfsMode != 0):
		return fail("tmpfs-size and tmpfs-mode go with type=tmpfs")
	}
	return m, nil
}

// ulimit reads the value of --ulimit: NAME=SOFT[:HARD], -1 for unlimited.
func ulimit(value string) (*warrenv1.Ulimit, error) {
	u, err := units.ParseUlimit(value)
	if err != nil {
		return nil, fmt.Errorf("--ulimit %s: not NAME=SOFT[:HARD], such as nofile=1024:2048: %w", value, err)
	}
	return &warrenv1.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}, nil
}

// spread reads the value of --placement-pref.
func spread(value string) (string, error) {
	strategy, label, ok := strings.Cut(value, "=")
	if !ok || !strings.EqualFold(strings.TrimSpace(strategy), "spread") {
		return "", fmt.Errorf("--placement-pref %s: not spread=LABEL, such as spread=node.labels.zone", value)
	}
	return strings.TrimSpace(label), nil
}

// each reads every value of a repeated flag.
func each[T any](values []string, read func(string) (T, error)) ([]T, error) {
	if len(values) == 0 {
		return nil, nil
	}
	all := make([]T, len(values))
	for i, v := range values {
		var err error
		if all[i], err = read(v); err != nil {
			return nil, err
		}
	}
	return all, nil
}
