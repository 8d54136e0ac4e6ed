package dispatch

import (
	"github.com/cuemby/warren/internal/manager/state"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// directory is what agents need to find the managers and to believe them, nil where nothing is known. As
// long as no manager has announced itself there is what this manager knows of itself.
func (d *Dispatcher) directory(s state.Snapshot) *warrenv1.Directory {
	dir := &warrenv1.Directory{Roots: s.Authority().GetRoots(), Bridge: s.Authority().GetBridge()}
	for m := range s.Members() {
		if m.GetAddr() != "" {
			dir.Managers = append(dir.Managers, m.GetAddr())
		}
	}
	if len(dir.GetManagers()) == 0 && d.reachable != nil {
		dir.Managers = d.reachable()
	}
	if len(dir.GetManagers())+len(dir.GetRoots()) == 0 {
		return nil
	}
	return dir
}
