package facts

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cuemby/warren/internal/version"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Engine is what is to be known of the container runtime.
type Engine struct {
	ContainerdVersion, RuncVersion string
	DiskBytes, DiskFreeBytes       uint64
}

// Options says what the machine cannot be asked.
type Options struct {
	// Hostname is used instead of the machine's own unless empty.
	Hostname string
	Labels   map[string]string
	// ReserveCPUs and ReserveMemory are kept back from tasks: processors and bytes.
	ReserveCPUs   float64
	ReserveMemory int64
	// Engine asks the container runtime.
	Engine func(context.Context) (Engine, error)
	Logger *slog.Logger
}

// Machine is the machine this program runs on.
type Machine struct {
	Options
	changed chan struct{}

	mu        sync.Mutex
	engine    Engine   // as last heard
	addresses []string // as last collected
}

// overlayLinks is what the names of Warren's own links begin with: their addresses are the cluster's, not the machine's.
const overlayLinks = "warren"

// engineTimeout bounds the wait for a runtime that does not answer: what was last heard is used then.
const engineTimeout = time.Second

// New makes a Machine. It fails if more is to be kept back than there is.
func New(o Options) (*Machine, error) {
	m := &Machine{Options: o, changed: make(chan struct{}, 1)}
	if o.Hostname == "" {
		hostname, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("find the machine's hostname: %w: give --hostname", err)
		}
		m.Hostname = hostname
	}
	if cpus := float64(runtime.NumCPU()); math.IsNaN(o.ReserveCPUs) || o.ReserveCPUs < 0 || o.ReserveCPUs >= cpus {
		return nil, fmt.Errorf("--reserve-cpu %g: it must be at least 0 and less than the machine's %g processors", o.ReserveCPUs, cpus)
	}
	memory, err := memoryBytes()
	if err != nil {
		return nil, err
	}
	if o.ReserveMemory < 0 || o.ReserveMemory >= memory {
		return nil, fmt.Errorf("--reserve-memory %d: it must be at least 0 and less than the machine's %d bytes", o.ReserveMemory, memory)
	}
	return m, nil
}

// Name is the node's hostname.
func (m *Machine) Name() string { return m.Hostname }

// Changed is readable when the machine may have changed.
func (m *Machine) Changed() <-chan struct{} { return m.changed }

// Recheck says that the machine may have changed.
func (m *Machine) Recheck() {
	select {
	case m.changed <- struct{}{}:
	default: // it is readable already
	}
}

// Collect looks at the machine. What cannot be found out is left empty.
func (m *Machine) Collect(ctx context.Context) *warrenv1.NodeFacts {
	memory, err := memoryBytes()
	if err != nil {
		m.Logger.Warn("cannot find the size of the memory", "error", err)
	}
	engine, addresses := m.askEngine(ctx), addresses()
	m.mu.Lock()
	m.addresses = addresses
	m.mu.Unlock()
	return &warrenv1.NodeFacts{
		Hostname:      m.Hostname,
		Os:            runtime.GOOS,
		Arch:          runtime.GOARCH,
		OsName:        osName("/etc/os-release", "/usr/lib/os-release"),
		Kernel:        kernelRelease(),
		CgroupVersion: cgroupVersion(),
		Resources: &warrenv1.Resources{
			NanoCpus:    int64((float64(runtime.NumCPU()) - m.ReserveCPUs) * 1e9),
			MemoryBytes: max(0, memory-m.ReserveMemory),
		},
		DiskBytes:         engine.DiskBytes,
		DiskFreeBytes:     engine.DiskFreeBytes,
		AgentVersion:      version.Version,
		ContainerdVersion: engine.ContainerdVersion,
		RuncVersion:       engine.RuncVersion,
		Addresses:         addresses,
		EngineLabels:      maps.Clone(m.Labels),
	}
}

func (m *Machine) askEngine(ctx context.Context) Engine {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	engine, err := m.Engine(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.Logger.Debug("the container runtime does not tell its version", "error", err)
		return m.engine
	}
	m.engine = engine
	return engine
}

// memoryBytes is the machine's memory.
func memoryBytes() (int64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("find the size of the memory: %w", err)
	}
	return int64(info.Totalram) * int64(info.Unit), nil
}

func kernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// cgroupVersion is 2 where the unified hierarchy is the only one.
func cgroupVersion() uint32 {
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return 2
	}
	return 1
}

// osName is the distribution's name for people, from the first of the files that is there, as
// os-release(5) has them.
func osName(paths ...string) string {
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			continue
		}
		defer file.Close()
		values := map[string]string{}
		for lines := bufio.NewScanner(file); lines.Scan(); {
			key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
			if !ok {
				continue
			}
			if unquoted, err := strconv.Unquote(value); err == nil {
				value = unquoted
			}
			values[key] = strings.Trim(value, "'")
		}
		return strings.ToValidUTF8(cmp.Or(values["PRETTY_NAME"], values["NAME"]), "\uFFFD") // or it could not be told
	}
	return ""
}

// addresses are those of the machine's own interfaces, in order.
func addresses() []string {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var found []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || strings.HasPrefix(i.Name, overlayLinks) {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away between the two calls
		}
		for _, addr := range addrs {
			if prefix, err := netip.ParsePrefix(addr.String()); err == nil && prefix.Addr().IsGlobalUnicast() {
				found = append(found, prefix.Addr())
			}
		}
	}
	slices.SortFunc(found, netip.Addr.Compare)
	text := make([]string, 0, len(found))
	for _, addr := range slices.Compact(found) {
		text = append(text, addr.String())
	}
	return text
}
