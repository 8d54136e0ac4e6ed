//go:build linux

package machine

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Unit is a service of a machine's systemd. It is on the machine's disk, and so starts again when the
// power comes back.
type Unit struct {
	// Name without the suffix .service.
	Name string
	// Type is systemd's; "notify" makes StartUnit wait until the program says that it is ready.
	Type string
	// Command is the program, found in the machine's PATH, with its arguments.
	Command []string
}

// StartUnit defines the unit, in place of one of that name, and starts it. It fails as "systemctl
// start" would, with the last lines of the unit's journal.
func (m *Machine) StartUnit(ctx context.Context, unit Unit) error {
	define := m.Command(ctx, "sh", "-ec", `
		cat >/etc/systemd/system/"$1".service
		systemctl enable --quiet "$1"
		systemctl daemon-reload
		systemctl restart "$1" || { journalctl --unit "$1" --output cat --lines 20; exit 1; }
		`, "sh", unit.Name)
	define.Stdin = strings.NewReader(unit.file())
	if output, err := define.CombinedOutput(); err != nil {
		return fmt.Errorf("start %s on %s: %w: %s", unit.Name, m.name, err, strings.TrimSpace(string(output)))
	}
	return nil
}

// InstallUnit puts a unit file on the machine, by its name with the suffix. A socket is enabled and started. Its programs
// are where the machine has them.
func (m *Machine) InstallUnit(ctx context.Context, name, file string) error {
	define := m.Command(ctx, "sh", "-ec", `
		cat >/etc/systemd/system/"$1"
		systemctl daemon-reload
		case "$1" in *.socket) systemctl enable --quiet --now "$1" ;; esac
		`, "sh", name)
	define.Stdin = strings.NewReader(strings.ReplaceAll(file, "/usr/bin/warren-", "/usr/local/bin/warren-"))
	if output, err := define.CombinedOutput(); err != nil {
		return fmt.Errorf("install %s on %s: %w: %s", name, m.name, err, strings.TrimSpace(string(output)))
	}
	return nil
}

// StartInstalled starts a service whose unit is on the machine, by its name without the suffix, with a command in place of
// the unit's; it starts again when the power comes back. It fails as StartUnit does.
func (m *Machine) StartInstalled(ctx context.Context, name string, command []string) error {
	start := m.Command(ctx, "sh", "-ec", `
		mkdir -p /etc/systemd/system/"$1".service.d
		cat >/etc/systemd/system/"$1".service.d/command.conf
		systemctl enable --quiet "$1"
		systemctl daemon-reload
		systemctl restart "$1" || { journalctl --unit "$1" --output cat --lines 20; exit 1; }
		`, "sh", name)
	start.Stdin = strings.NewReader("[Service]\nExecStart=\nExecStart=" + quoteCommand(command) + "\n")
	if output, err := start.CombinedOutput(); err != nil {
		return fmt.Errorf("start %s on %s: %w: %s", name, m.name, err, strings.TrimSpace(string(output)))
	}
	return nil
}

// InstallAccounts puts files for sysusers.d and tmpfiles.d on the machine, by their name there, and has what they say made.
func (m *Machine) InstallAccounts(ctx context.Context, name, sysusers, tmpfiles string) error {
	for path, text := range map[string]string{"/etc/sysusers.d": sysusers, "/etc/tmpfiles.d": tmpfiles} {
		write := m.Command(ctx, "sh", "-ec", `mkdir -p "$1" && cat >"$1/$2".conf`, "sh", path, name)
		write.Stdin = strings.NewReader(text)
		if output, err := write.CombinedOutput(); err != nil {
			return fmt.Errorf("install %s/%s.conf on %s: %w: %s", path, name, m.name, err, strings.TrimSpace(string(output)))
		}
	}
	_, err := m.Run(ctx, "sh", "-ec", `systemd-sysusers "$1".conf && systemd-tmpfiles --create "$1".conf`, "sh", name)
	return err
}

func (u Unit) file() string {
	var file strings.Builder
	fmt.Fprintf(&file, "[Unit]\nDescription=%s\n\n[Service]\nType=%s\nExecStart=%s\n", u.Name, u.Type, quoteCommand(u.Command))
	file.WriteString("\n[Install]\nWantedBy=multi-user.target\n")
	return file.String()
}

// quoteCommand writes a command as a unit has it.
func quoteCommand(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = quoteForUnit(arg)
	}
	return strings.Join(quoted, " ")
}

// quoteForUnit quotes an argument as systemd.service(5) has it.
func quoteForUnit(arg string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, `%`, `%%`, `$`, `$$`).Replace(arg) + `"`
}

// StopUnit stops a unit in good order. Starting it again is StartUnit's or "systemctl start"'s.
func (m *Machine) StopUnit(ctx context.Context, name string) error {
	_, err := m.Run(ctx, "systemctl", "stop", name)
	return err
}

// KillUnit ends a unit's main process with SIGKILL and returns when systemd has seen its end.
func (m *Machine) KillUnit(ctx context.Context, name string) error {
	// A stop right after the kill waits for the end, and forbids a restart that the unit may ask for.
	_, err := m.Run(ctx, "sh", "-ec", `
		systemctl kill --kill-who=main --signal=KILL "$1"
		systemctl stop "$1"
		systemctl reset-failed "$1" 2>/dev/null || true
		`, "sh", name)
	return err
}

// Journal returns the last lines of a unit's journal.
func (m *Machine) Journal(ctx context.Context, unit string, lines int) (string, error) {
	return m.Run(ctx, "journalctl", "--unit", unit, "--output", "short-monotonic", "--no-pager", "--lines", strconv.Itoa(lines))
}
