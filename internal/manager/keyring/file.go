package keyring

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cuemby/warren/internal/manager/authority"
)

// The kinds of PEM blocks in the files.
const (
	pemClusterKey       = "WARREN CLUSTER KEY"
	pemSealedClusterKey = "WARREN SEALED CLUSTER KEY"
	pemPrivateKey       = "PRIVATE KEY"
	pemSealedPrivateKey = "WARREN SEALED PRIVATE KEY"
	pemCertificate      = "CERTIFICATE"

	versionHeader = "Authority-Version"
)

const (
	// maxFileBytes bounds a file: certificates are the larger, and there are a few while the CA is replaced.
	maxFileBytes = 64 << 10
)

// keyFileContent is what cluster.key holds.
type keyFileContent struct {
	sealed  bool
	version uint64
	content []byte
}

func (f keyFileContent) encode() []byte {
	kind := pemClusterKey
	if f.sealed {
		kind = pemSealedClusterKey
	}
	return pem.EncodeToMemory(&pem.Block{
		Type: kind, Headers: map[string]string{versionHeader: strconv.FormatUint(f.version, 10)}, Bytes: f.content,
	})
}

func decodeKeyFile(text []byte) (keyFileContent, error) {
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 || block.Type != pemClusterKey && block.Type != pemSealedClusterKey {
		return keyFileContent{}, errors.New("it must hold one key in PEM")
	}
	version, err := strconv.ParseUint(block.Headers[versionHeader], 10, 64)
	if err != nil {
		return keyFileContent{}, fmt.Errorf("its %s is %q, which is no number", versionHeader, block.Headers[versionHeader])
	}
	if len(block.Bytes) == 0 {
		return keyFileContent{}, errors.New("the key in it is empty")
	}
	return keyFileContent{sealed: block.Type == pemSealedClusterKey, version: version, content: block.Bytes}, nil
}

// hideIdentity seals the private key in a text of credentials.
func hideIdentity(text []byte, key *authority.Key) ([]byte, error) {
	return eachBlock(text, pemPrivateKey, func(block *pem.Block) error {
		if key == nil {
			return errors.New("there is no cluster's key to seal it with")
		}
		sealed, err := key.Seal(sealPrivateKey, block.Bytes)
		block.Type, block.Bytes = pemSealedPrivateKey, sealed
		return err
	})
}

// openIdentity undoes hideIdentity, and tells whether there was anything to undo.
func openIdentity(text []byte, key *authority.Key) (open []byte, hidden bool, err error) {
	open, err = eachBlock(text, pemSealedPrivateKey, func(block *pem.Block) error {
		hidden = true
		if key == nil {
			return errors.New("its private key is sealed with the cluster's key, and " + keyFile + " is missing: restore it from a copy of the data folder, or empty that folder and let the manager join anew")
		}
		private, err := key.Open(sealPrivateKey, block.Bytes)
		block.Type, block.Bytes = pemPrivateKey, private
		return err
	})
	return open, hidden, err
}

// eachBlock returns a text in which the PEM blocks of one kind are changed.
func eachBlock(text []byte, kind string, change func(*pem.Block) error) ([]byte, error) {
	var changed bytes.Buffer
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == kind {
			if err := change(block); err != nil {
				return nil, err
			}
		}
		if err := pem.Encode(&changed, block); err != nil {
			return nil, err
		}
	}
	return changed.Bytes(), nil
}

// read returns what a file holds, and sees to it that its owner alone may read it from now on.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.Mode().Perm()&0o077 != 0 {
		if err := f.Chmod(0o600); err != nil {
			return nil, fmt.Errorf("others may read it: %w", err)
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(text) > maxFileBytes {
		err = fmt.Errorf("it has more than %d bytes, which no such file has", maxFileBytes)
	}
	return text, err
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// sweep removes what a crash has left of files that were being written (pki.WriteSecret).
func sweep(dir string) error {
	var all []error
	for _, name := range []string{keyFile, identityFile} {
		if err := os.Remove(filepath.Join(dir, name+".new")); !errors.Is(err, fs.ErrNotExist) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}
