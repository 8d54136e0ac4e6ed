//go:build linux

package cluster

import (
	"context"
	"fmt"
	"os"

	"github.com/cuemby/warren/test/machine"
)

// AddRepository has a machine install from an apt repository, a folder of the host, and from nowhere else.
func AddRepository(ctx context.Context, m *machine.Machine, folder string) error {
	const there = "/srv/apt"
	if err := os.RemoveAll(m.HostPath(there)); err != nil {
		return err
	}
	if err := os.CopyFS(m.HostPath(there), os.DirFS(folder)); err != nil {
		return fmt.Errorf("copy the apt repository: %w", err)
	}
	source := "deb [signed-by=" + there + "/warren.gpg] file:" + there + " stable main\n"
	if err := os.WriteFile(m.HostPath("/etc/apt/sources.list"), []byte(source), 0o644); err != nil {
		return err
	}
	// The questions of packages, of which Warren's have none, are asked in advance by a program that these machines lack.
	const noQuestions = "#clear DPkg::Pre-Install-Pkgs;\n"
	if err := os.WriteFile(m.HostPath("/etc/apt/apt.conf.d/99questions"), []byte(noQuestions), 0o644); err != nil {
		return err
	}
	_, err := m.Run(ctx, "apt-get", "--quiet", "update", "--error-on=any")
	return err
}
