//go:build linux

package machine

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"os"
	"path/filepath"
)

//go:embed rootimage.sh
var rootScript []byte

// RootImage is the root file system that rootimage.sh, as it stood when this program was compiled,
// builds for the machines; "make setup" runs it.
func RootImage() string {
	cache := cmp.Or(os.Getenv("WARREN_TEST_CACHE"), "/var/cache/warren-test")
	sum := sha256.Sum256(rootScript)
	return filepath.Join(cache, "root-"+hex.EncodeToString(sum[:6]))
}
