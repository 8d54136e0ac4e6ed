package contexts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Context is how to reach a cluster, and as whom.
type Context struct {
	// ClusterName is what people call the cluster.
	ClusterName string
	// Managers are the managers' host:port.
	Managers []string
	// Credentials say who the user is, and by which CA managers are known.
	Credentials *pki.Credentials
	// RefreshAfter is when the managers' addresses are to be asked for again, RenewAfter before when no
	// renewal of the certificate is to be tried.
	RefreshAfter, RenewAfter time.Time
}

// format is what the first field of every file says.
const format = "v1"

// maxBytes bounds a context file.
const maxBytes = 256 << 10

// file is how a context is written down. Cluster and user are for people to read: the certificate says
// who they are.
type file struct {
	Context string `yaml:"warren-context"`
	Cluster struct {
		Name string `yaml:"name"`
		ID   string `yaml:"id"`
	} `yaml:"cluster"`
	User struct {
		Name string `yaml:"name"`
		Role string `yaml:"role"`
	} `yaml:"user"`
	Managers     []string  `yaml:"managers"`
	RefreshAfter time.Time `yaml:"refresh-after,omitempty"`
	RenewAfter   time.Time `yaml:"renew-after,omitempty"`
	// Credentials are the private key, the certificate and the CA certificates in PEM.
	Credentials string `yaml:"credentials"`
}

const heading = "# Whoever has this file is this user of the cluster. Use it with: warrenctl context import FILE\n"

// Identity is who the user is, in which cluster.
func (c *Context) Identity() pki.Identity { return c.Credentials.Identity() }

// Encode writes a context down.
func (c *Context) Encode() ([]byte, error) {
	credentials, err := c.Credentials.Encode()
	if err != nil {
		return nil, err
	}
	who := c.Identity()
	f := file{
		Context: format, Managers: c.Managers, Credentials: string(credentials),
		RefreshAfter: c.RefreshAfter.UTC().Truncate(time.Second), RenewAfter: c.RenewAfter.UTC().Truncate(time.Second),
	}
	f.Cluster.Name, f.Cluster.ID = c.ClusterName, who.Cluster
	f.User.Name, f.User.Role = who.Name, pki.RoleName(who.Role)
	var b bytes.Buffer
	b.WriteString(heading)
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(f), encoder.Close()); err != nil {
		return nil, fmt.Errorf("write a context down: %w", err)
	}
	return b.Bytes(), nil
}

// Parse reads what Encode wrote.
func Parse(text []byte) (*Context, error) {
	var f file
	if err := yaml.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("it is no context file: %w", err)
	}
	if f.Context != format {
		return nil, errors.New("it is no context file, or one of another version of warrenctl: `warrenctl user create` makes one")
	}
	credentials, err := pki.Decode([]byte(f.Credentials))
	if err != nil {
		return nil, fmt.Errorf("its credentials: %w", err)
	}
	switch who := credentials.Identity(); who.Role {
	case warrenv1.Role_ROLE_VIEWER, warrenv1.Role_ROLE_OPERATOR, warrenv1.Role_ROLE_ADMIN:
	default:
		return nil, fmt.Errorf("its certificate is of %s %s, not of a user", pki.RoleName(who.Role), who.Name)
	}
	if len(f.Managers) == 0 {
		return nil, errors.New("it names no managers")
	}
	for _, m := range f.Managers {
		if _, port, err := net.SplitHostPort(m); err != nil || port == "" {
			return nil, fmt.Errorf("its manager %q is not HOST:PORT", m)
		}
	}
	return &Context{
		ClusterName: f.Cluster.Name, Managers: f.Managers, Credentials: credentials,
		RefreshAfter: f.RefreshAfter, RenewAfter: f.RenewAfter,
	}, nil
}

// Read reads a context from a stream.
func Read(r io.Reader) (*Context, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxBytes {
		return nil, fmt.Errorf("it is no context file: it has more than %d bytes", maxBytes)
	}
	return Parse(text)
}

// ReadFile reads a context file, which only its owner may be able to read. It fails with fs.ErrNotExist
// where there is none.
func ReadFile(path string) (c *Context, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the context file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil {
		err = private(info)
	}
	if err == nil {
		c, err = Read(f)
	}
	if err != nil {
		return nil, fmt.Errorf("read the context file %s: %w", path, err)
	}
	return c, nil
}

// private tells whether a file is its owner's alone. On Windows folders see to that.
func private(info os.FileInfo) error {
	if runtime.GOOS != "windows" && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("others can read or change it (mode %04o), and it holds a private key: run `chmod 600` on it", info.Mode().Perm())
	}
	return nil
}
