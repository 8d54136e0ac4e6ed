package runtime

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// insecureRegistries are those spoken to by plain HTTP.
type insecureRegistries struct {
	hosts    map[string]bool // host or host:port
	networks []netip.Prefix
}

func parseInsecureRegistries(entries []string) (insecureRegistries, error) {
	parsed := insecureRegistries{hosts: make(map[string]bool)}
	for _, entry := range entries {
		if strings.Contains(entry, "/") {
			network, err := netip.ParsePrefix(entry)
			if err != nil {
				return parsed, fmt.Errorf("insecure registry %q: want host, host:port or a range such as 10.0.0.0/8", entry)
			}
			parsed.networks = append(parsed.networks, network.Masked())
			continue
		}
		parsed.hosts[strings.ToLower(entry)] = true
	}
	return parsed, nil
}

// match tells whether a registry, host or host:port, is one of them.
func (r insecureRegistries) match(registry string) (bool, error) {
	if local, err := docker.MatchLocalhost(registry); local || err != nil {
		return local, err
	}
	registry = strings.ToLower(registry)
	host := registry
	if name, _, err := net.SplitHostPort(registry); err == nil {
		host = name
	}
	if r.hosts[registry] || r.hosts[host] {
		return true, nil
	}
	// A name gives no address, which no range contains.
	address, _ := netip.ParseAddr(strings.Trim(host, "[]"))
	return slices.ContainsFunc(r.networks, func(network netip.Prefix) bool {
		return network.Contains(address.Unmap())
	}), nil
}

// dockerConfig is the part of a Docker config.json that is about credentials.
type dockerConfig struct {
	Auths       map[string]dockerAuth `json:"auths"`
	CredHelpers map[string]string     `json:"credHelpers"`
	CredsStore  string                `json:"credsStore"`
}

type dockerAuth struct {
	Auth          string `json:"auth"` // base64 of user:password
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
}

// credentials returns user and secret for a registry, read at each pull so that they may change
// under a running agent. A secret without a user is a refresh token. Both are empty where there are none.
func credentials(ctx context.Context, configPath, host string) (user, secret string, err error) {
	if configPath == "" {
		return "", "", nil
	}
	text, err := os.ReadFile(configPath)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("registry credentials: %w", err)
	}
	var config dockerConfig
	if err := json.Unmarshal(text, &config); err != nil {
		return "", "", fmt.Errorf("registry credentials: %s: %w", configPath, err)
	}
	names := registryNames(host)
	for _, name := range names {
		if helper := config.CredHelpers[name]; helper != "" {
			return askHelper(ctx, helper, name)
		}
	}
	for _, name := range names {
		if auth, known := config.Auths[name]; known && auth != (dockerAuth{}) {
			return auth.decode(name)
		}
	}
	if config.CredsStore != "" {
		return askHelper(ctx, config.CredsStore, names[0])
	}
	return "", "", nil
}

// registryNames are the keys under which config.json may know a registry. Docker Hub has its own,
// from the days of the first protocol.
func registryNames(host string) []string {
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return []string{"https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"}
	}
	return []string{host, "https://" + host, "http://" + host, "https://" + host + "/v2/", "https://" + host + "/v1/"}
}

func (a dockerAuth) decode(name string) (user, secret string, err error) {
	if a.IdentityToken != "" {
		return "", a.IdentityToken, nil
	}
	if a.Auth == "" {
		return a.Username, a.Password, nil
	}
	decoded, err := base64.StdEncoding.DecodeString(a.Auth)
	if err != nil {
		return "", "", fmt.Errorf("registry credentials: auths.%s.auth is not base64", name)
	}
	user, secret, found := strings.Cut(string(decoded), ":")
	if !found {
		return "", "", fmt.Errorf("registry credentials: auths.%s.auth is not user:password", name)
	}
	return user, strings.TrimRight(secret, "\x00"), nil
}

// askHelper runs docker-credential-NAME, as the docker command does.
func askHelper(ctx context.Context, helper, registry string) (user, secret string, err error) {
	program := "docker-credential-" + helper
	if strings.ContainsRune(helper, os.PathSeparator) {
		return "", "", fmt.Errorf("registry credentials: %q is not a credential helper's name", helper)
	}
	command := exec.CommandContext(ctx, program, "get")
	command.Stdin = strings.NewReader(registry)
	var answer, complaint bytes.Buffer
	command.Stdout, command.Stderr = &answer, &complaint
	if err := command.Run(); err != nil {
		said := strings.TrimSpace(answer.String() + complaint.String())
		if strings.Contains(said, "credentials not found") {
			return "", "", nil
		}
		return "", "", fmt.Errorf("registry credentials: %s: %w: %s", program, err, said)
	}
	var got struct{ Username, Secret string }
	if err := json.Unmarshal(answer.Bytes(), &got); err != nil {
		return "", "", fmt.Errorf("registry credentials: %s gave no credentials: %w", program, err)
	}
	if got.Username == "<token>" {
		got.Username = ""
	}
	return got.Username, got.Secret, nil
}
