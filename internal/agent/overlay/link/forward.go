package link

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Forwarding is the one setting of the whole host that Warren needs: what comes in by an uplink for a
// published port goes on to a task. Switching it overwrites the setting of each link, and whether redirects
// are accepted (ip-sysctl: "this variable is special"), so those are kept too.

const (
	forwardSetting = "ipv4/ip_forward"
	redirects      = "accept_redirects"

	// beforeFile is in the folder of namespaces, whose tmpfs lives as long as settings do. No task's id
	// begins with a dot.
	beforeFile = ".forwarding-before"
)

// before is how the host was when it did not forward.
type before struct {
	Forwarding []string          // links that did all the same
	Redirects  map[string]string // by link, "all" and "default"
}

// forward has the host forward packets. If it did not, how it was is on disk first.
func (w *Wires) forward() error {
	now, err := readSetting(forwardSetting)
	if err != nil {
		return fmt.Errorf("read net/%s: %w", forwardSetting, err)
	}
	if now != "0" {
		return nil
	}
	was := before{Redirects: map[string]string{}}
	links, err := os.ReadDir("/proc/sys/net/ipv4/conf")
	if err != nil {
		return fmt.Errorf("read the links' settings: %w", err)
	}
	for _, l := range links {
		if l.Name() == w.Bridge || l.Name() == w.Device {
			continue
		}
		if on, err := readSetting(v4(l.Name(), "forwarding", "").path); err == nil && on == "1" {
			was.Forwarding = append(was.Forwarding, l.Name())
		}
		if accepted, err := readSetting(v4(l.Name(), redirects, "").path); err == nil {
			was.Redirects[l.Name()] = accepted
		}
	}
	text, err := json.Marshal(was)
	if err != nil {
		return fmt.Errorf("record the host's settings: %w", err)
	}
	path := filepath.Join(w.NamespaceDir, beforeFile)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return fmt.Errorf("record the host's settings: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("record the host's settings: %w", err)
	}
	if err := apply(setting{forwardSetting, "1"}); err != nil {
		return err
	}
	w.Logger.Info("this host now forwards packets between its links, which the overlay needs (net.ipv4.ip_forward)")
	return nil
}

// unforward puts the host's settings back if forward changed them.
func (w *Wires) unforward() error {
	path := filepath.Join(w.NamespaceDir, beforeFile)
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("put the host's settings back: %w", err)
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var was before
	if err == nil {
		err = json.Unmarshal(text, &was)
	}
	if err != nil {
		return fmt.Errorf("put the host's settings back: %w", err)
	}
	restore := []setting{{forwardSetting, "0"}}
	for _, l := range was.Forwarding {
		restore = append(restore, v4(l, "forwarding", "1"))
	}
	for l, accepted := range was.Redirects {
		restore = append(restore, v4(l, redirects, accepted))
	}
	if err := apply(restore...); err != nil {
		return err
	}
	w.Logger.Info("this host no longer forwards packets between its links, as before Warren")
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("put the host's settings back: %w", err)
	}
	return nil
}
