package runtime

import (
	"os"
	goruntime "runtime"
	"slices"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	rootpath "github.com/containerd/continuity/fs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// The machine's own architecture and the 32-bit one it can run as well, as seccomp calls them, and where
// the dynamic loaders of the latter stand.
var architectures = map[string]struct {
	native, narrow specs.Arch
	loaders        []string
}{
	"amd64": {specs.ArchX86_64, specs.ArchX86, []string{"/lib/ld-linux.so.2", "/lib/ld-musl-i386.so.1"}},
	"arm64": {specs.ArchAARCH64, specs.ArchARM, []string{"/lib/ld-linux-armhf.so.3", "/lib/ld-linux.so.3", "/lib/ld-musl-armhf.so.1"}},
}

// defaultSeccomp is the profile users of Docker know, for the architectures that an image has programs of.
// The filter is compiled at every start of a container, and each further architecture costs that
// start as much again: measured with runc 1.1.5 and libseccomp 2.5.4, 15 ms of processor time for the three
// that Docker lists on amd64, 4 ms for the native one, where all the rest of runc's work takes 28.
func defaultSeccomp(spec *specs.Spec, narrow bool) *specs.LinuxSeccomp {
	profile := seccomp.DefaultProfile(spec)
	machine, known := architectures[goruntime.GOARCH]
	if !known {
		return profile
	}
	profile.Architectures = []specs.Arch{machine.native}
	if narrow {
		profile.Architectures = append(profile.Architectures, machine.narrow)
	}
	return profile
}

// runsNarrow tells whether an image can run 32-bit programs: whether it has a loader for them.
// A program of an architecture outside the profile is killed by the kernel at its first system call.
func runsNarrow(root, architecture string) bool {
	if architecture == "386" || architecture == "arm" {
		return true
	}
	return slices.ContainsFunc(architectures[goruntime.GOARCH].loaders, func(loader string) bool {
		path, err := rootpath.RootPath(root, loader)
		if err != nil {
			return false
		}
		_, err = os.Stat(path)
		return err == nil
	})
}
