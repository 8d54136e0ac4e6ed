package manager

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cuemby/warren/internal/pki"
)

// addresses are where a manager listens and how others reach it, each host:port; an empty one is left to
// be worked out.
type addresses struct {
	Listen    string `json:"listen"`
	Advertise string `json:"advertise"`
}

// settled are addresses that were given when the manager became part of its cluster, with those that its
// configuration named then. They hold until the configuration says something else.
type settled struct {
	Given      addresses `json:"given"`
	Configured addresses `json:"configured"`
}

func addressesPath(dataDir string) string { return filepath.Join(dataDir, "addresses.json") }

// settledAddresses returns the addresses in force: those given, unless the configuration has been changed
// since.
func settledAddresses(dataDir string, configured addresses) (addresses, error) {
	path := addressesPath(dataDir)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return configured, nil
	}
	var s settled
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return addresses{}, fmt.Errorf("read the manager's addresses %s: %w", path, err)
	}
	if s.Configured != configured {
		return configured, nil
	}
	return s.Given, nil
}

// settle keeps addresses that were given.
func settle(dataDir string, configured, given addresses) error {
	if given == configured {
		err := os.Remove(addressesPath(dataDir))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	text, err := json.Marshal(settled{Given: given, Configured: configured})
	if err == nil {
		err = pki.WriteSecret(addressesPath(dataDir), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep the manager's addresses: %w", err)
	}
	return nil
}
