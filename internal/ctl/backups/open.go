package backups

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"filippo.io/age"
)

// ErrPassphrase says that a passphrase is not the one a backup was encrypted with.
var ErrPassphrase = errors.New("the passphrase is wrong")

// encryptedLead is how a file begins that was encrypted with age.
const encryptedLead = "age-encryption.org/v1\n"

// maxWork bounds what a file may ask of this machine before it is opened: some 4 GiB and a minute.
const maxWork = 22

// Reader reads a backup, through decryption where there is any.
type Reader struct {
	// Encrypted tells that the file is.
	Encrypted bool

	from io.Reader
	sum  hash.Hash
	size int64
}

// Open reads a backup. Where it is encrypted, ask is called for the passphrase. It fails with ErrPassphrase.
func Open(from io.Reader, ask func() (string, error)) (*Reader, error) {
	r := &Reader{sum: sha256.New()}
	in := bufio.NewReaderSize(io.TeeReader(from, io.MultiWriter(r.sum, (*counter)(&r.size))), 64<<10)
	r.from = in
	lead, err := in.Peek(len(encryptedLead))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if string(lead) != encryptedLead {
		return r, nil
	}
	r.Encrypted = true
	passphrase, err := ask()
	if err != nil {
		return nil, err
	}
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fmt.Errorf("decrypt the backup: %w", err)
	}
	identity.SetMaxWorkFactor(maxWork)
	opened, err := age.Decrypt(in, identity)
	if wrong := (*age.NoIdentityMatchError)(nil); errors.As(err, &wrong) {
		return nil, ErrPassphrase
	}
	if err != nil {
		return nil, fmt.Errorf("decrypt the backup: %w", err)
	}
	r.from = decrypted{opened}
	return r, nil
}

// Read implements io.Reader.
func (r *Reader) Read(b []byte) (int, error) { return r.from.Read(b) }

// Size is how many bytes of the file were read.
func (r *Reader) Size() int64 { return r.size }

// Sum is the SHA-256 of what was read of the file, as sha256sum prints it once all of it was.
func (r *Reader) Sum() string { return hex.EncodeToString(r.sum.Sum(nil)) }

// decrypted words what decryption finds wrong with a file.
type decrypted struct{ io.Reader }

// Read implements io.Reader.
func (d decrypted) Read(b []byte) (int, error) {
	n, err := d.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		// Not wrapped: an io.ErrUnexpectedEOF in it must not be taken for the end of what is read.
		err = errors.New("decrypt the backup: the file is cut short, damaged or was altered: " + err.Error())
	}
	return n, err
}
