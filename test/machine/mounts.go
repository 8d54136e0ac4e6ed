//go:build linux

package machine

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return &fs.PathError{Op: "mount", Path: target, Err: err}
	}
	return nil
}

// mountPoint is one line of this process's mount table.
type mountPoint struct {
	path, kind string
}

// mountTable lists what is mounted, oldest first.
func mountTable() ([]mountPoint, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var points []mountPoint
	for line := range strings.Lines(string(table)) {
		// 36 35 98:0 /root /mount/point options [optional fields] - type source options
		before, after, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 1 {
			return nil, fmt.Errorf("unexpected line in the mount table: %q", line)
		}
		points = append(points, mountPoint{path: unescapeMount.Replace(fields[4]), kind: kind[0]})
	}
	return points, nil
}

var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// unmountUnder unmounts everything mounted at or under dir, the latest first.
func unmountUnder(dir string) error {
	points, err := mountTable()
	if err != nil {
		return err
	}
	for _, point := range slices.Backward(points) {
		if point.path != dir && !strings.HasPrefix(point.path, dir+"/") {
			continue
		}
		if err := unix.Unmount(point.path, unix.MNT_DETACH); err != nil {
			return &fs.PathError{Op: "unmount", Path: point.path, Err: err}
		}
	}
	return nil
}
