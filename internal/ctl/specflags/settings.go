package specflags

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"google.golang.org/protobuf/types/known/durationpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Settings are the flags that `service create` and `service update` have in common. A nil field was
// not given and changes nothing.
type Settings struct {
	Replicas *uint32 `help:"Number of tasks." placeholder:"N"`

	Entrypoint      *string        `group:"Container" help:"Program and first arguments in place of the image's, in one string; empty for the image's." placeholder:"COMMAND"`
	Workdir         *string        `short:"w" group:"Container" help:"Working directory in the container." placeholder:"PATH"`
	User            *string        `short:"u" group:"Container" help:"User, by name or id, and group where wanted." placeholder:"USER[:GROUP]"`
	Hostname        *string        `group:"Container" help:"Host name of the container; may hold templates such as {{.Task.Slot}}." placeholder:"NAME"`
	ReadOnly        *bool          `group:"Container" help:"Make the root file system read-only."`
	Init            *bool          `group:"Container" help:"Run a small init as process 1."`
	TTY             *bool          `name:"tty" short:"t" group:"Container" help:"Give the program a terminal."`
	NoNewPrivileges *bool          `group:"Container" help:"Let the program gain no privileges."`
	Seccomp         *string        `group:"Container" help:"System call filter: default or unconfined." placeholder:"PROFILE"`
	StopSignal      *string        `group:"Container" help:"Signal that asks the program to end." placeholder:"SIGNAL"`
	StopGracePeriod *time.Duration `group:"Container" help:"Time from that signal to SIGKILL (10s)." placeholder:"DURATION"`
	StopDrainPeriod *time.Duration `aliases:"drain-period" group:"Container" help:"Time that a task goes on for the connections it has, once it gets no new ones and before that signal (100ms)." placeholder:"DURATION"`
	LogOpt          []string       `sep:"none" group:"Container" help:"Bound on kept output: max-size=10m, max-file=3." placeholder:"KEY=VALUE"`

	EndpointMode *string `group:"Network" help:"What the service's name means: vip (one address, balanced) or dnsrr (those of its tasks) (vip)." placeholder:"MODE"`

	LimitCPU      *CPUs   `name:"limit-cpu" group:"Resources" help:"Processors a task may use, such as 0.5; 0 for no limit." placeholder:"N"`
	LimitMemory   *Memory `group:"Resources" help:"Memory a task may use, such as 512m; 0 for no limit." placeholder:"BYTES"`
	LimitPIDs     *int64  `name:"limit-pids" group:"Resources" help:"Processes a task may have; 0 for no limit." placeholder:"N"`
	ReserveCPU    *CPUs   `name:"reserve-cpu" group:"Resources" help:"Processors set aside for a task on its node." placeholder:"N"`
	ReserveMemory *Memory `group:"Resources" help:"Memory set aside for a task on its node." placeholder:"BYTES"`

	RestartCondition   *string        `group:"Restart" help:"Restart after the program ended: any, on-failure or none (any)." placeholder:"WHEN"`
	RestartDelay       *time.Duration `group:"Restart" help:"Wait before the first restart, doubled with each (at once, then 1s)." placeholder:"DURATION"`
	RestartMaxDelay    *time.Duration `group:"Restart" help:"Longest wait (60s)." placeholder:"DURATION"`
	RestartMaxAttempts *Attempts      `group:"Restart" help:"Restarts before a task is replaced, or unlimited (unlimited)." placeholder:"N"`
	RestartWindow      *time.Duration `group:"Restart" help:"Time of running after which restarts are counted anew (5m)." placeholder:"DURATION"`

	MaxPerNode *uint32  `name:"replicas-max-per-node" group:"Placement" help:"Tasks on one node at most; 0 for no bound." placeholder:"N"`
	Platform   []string `sep:"none" group:"Placement" help:"Only nodes of this platform, such as linux/arm64; repeatable; empty for any." placeholder:"OS/ARCH"`

	Health
	Rollout
}

// apply writes what was given into spec, which has a task and a container.
func (s *Settings) apply(spec *warrenv1.ServiceSpec) error {
	if s.Replicas != nil {
		replicated := spec.GetReplicated()
		if replicated == nil {
			return fmt.Errorf("--replicas: a global service has one task on each node; its number cannot be set")
		}
		replicated.Replicas = *s.Replicas
	}
	for _, step := range []func(*warrenv1.ServiceSpec) error{
		s.applyContainer, s.applyLog, s.applyResources, s.applyRestart, s.applyPlacement, s.applyHealth, s.applyRollout,
	} {
		if err := step(spec); err != nil {
			return err
		}
	}
	return nil
}

func (s *Settings) applyContainer(spec *warrenv1.ServiceSpec) (err error) {
	c := spec.GetTask().GetContainer()
	if s.Entrypoint != nil {
		if c.Command, err = words("--entrypoint", *s.Entrypoint); err != nil {
			return err
		}
	}
	set(&c.Workdir, s.Workdir)
	set(&c.User, s.User)
	set(&c.Hostname, s.Hostname)
	set(&c.ReadOnly, s.ReadOnly)
	set(&c.Init, s.Init)
	set(&c.Tty, s.TTY)
	set(&c.NoNewPrivileges, s.NoNewPrivileges)
	if s.StopSignal != nil {
		c.StopSignal = strings.ToUpper(*s.StopSignal)
	}
	setDuration(&c.StopGracePeriod, s.StopGracePeriod)
	setDuration(&c.DrainPeriod, s.StopDrainPeriod)
	if s.EndpointMode != nil {
		if err := choose("--endpoint-mode", s.EndpointMode, &made(&spec.Endpoint).Mode, endpointModes); err != nil {
			return err
		}
	}
	return choose("--seccomp", s.Seccomp, &c.Seccomp, seccompProfiles)
}

func (s *Settings) applyLog(spec *warrenv1.ServiceSpec) error {
	for _, option := range s.LogOpt {
		key, value, _ := strings.Cut(option, "=")
		log := made(&spec.GetTask().Log)
		switch key {
		case "max-size":
			// Powers of 1,000, as Docker reads this one.
			size, err := units.FromHumanSize(value)
			if err != nil {
				return fmt.Errorf("--log-opt %s: not a size, such as 10m", option)
			}
			log.MaxSizeBytes = size
		case "max-file":
			files, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return fmt.Errorf("--log-opt %s: not a number of files", option)
			}
			log.MaxFiles = uint32(files)
		default:
			return fmt.Errorf("--log-opt %s: not known: max-size and max-file are", option)
		}
	}
	return nil
}

func (s *Settings) applyResources(spec *warrenv1.ServiceSpec) error {
	task := spec.GetTask()
	if s.LimitCPU != nil {
		made(&task.Limits).NanoCpus = int64(*s.LimitCPU)
	}
	if s.LimitMemory != nil {
		made(&task.Limits).MemoryBytes = int64(*s.LimitMemory)
	}
	if s.LimitPIDs != nil {
		made(&task.Limits).Pids = *s.LimitPIDs
	}
	if s.ReserveCPU != nil {
		made(&task.Reservations).NanoCpus = int64(*s.ReserveCPU)
	}
	if s.ReserveMemory != nil {
		made(&task.Reservations).MemoryBytes = int64(*s.ReserveMemory)
	}
	return nil
}

func (s *Settings) applyRestart(spec *warrenv1.ServiceSpec) error {
	if s.RestartCondition == nil && s.RestartDelay == nil && s.RestartMaxDelay == nil && s.RestartMaxAttempts == nil && s.RestartWindow == nil {
		return nil
	}
	restart := made(&spec.GetTask().Restart)
	setDuration(&restart.Delay, s.RestartDelay)
	setDuration(&restart.MaxDelay, s.RestartMaxDelay)
	setDuration(&restart.Window, s.RestartWindow)
	if s.RestartMaxAttempts != nil {
		restart.MaxAttempts = s.RestartMaxAttempts.limit
	}
	return choose("--restart-condition", s.RestartCondition, &restart.Condition, restartConditions)
}

func (s *Settings) applyPlacement(spec *warrenv1.ServiceSpec) error {
	if s.MaxPerNode != nil {
		made(&spec.Placement).MaxReplicasPerNode = *s.MaxPerNode
	}
	if s.Platform != nil {
		platforms := make([]string, 0, len(s.Platform))
		for _, p := range s.Platform {
			if p != "" {
				platforms = append(platforms, p)
			}
		}
		made(&spec.Placement).Platforms = platforms
	}
	return nil
}

// The words of flags that choose one of a few.
var (
	seccompProfiles = []choice[warrenv1.SeccompProfile]{
		{"default", warrenv1.SeccompProfile_SECCOMP_PROFILE_UNSPECIFIED},
		{"unconfined", warrenv1.SeccompProfile_SECCOMP_PROFILE_UNCONFINED},
	}
	endpointModes = []choice[warrenv1.EndpointMode]{
		{"vip", warrenv1.EndpointMode_ENDPOINT_MODE_VIP},
		{"dnsrr", warrenv1.EndpointMode_ENDPOINT_MODE_DNSRR},
	}
	restartConditions = []choice[warrenv1.RestartCondition]{
		{"any", warrenv1.RestartCondition_RESTART_CONDITION_ANY},
		{"on-failure", warrenv1.RestartCondition_RESTART_CONDITION_ON_FAILURE},
		{"none", warrenv1.RestartCondition_RESTART_CONDITION_NONE},
	}
	updateOrders = []choice[warrenv1.UpdateOrder]{
		{"start-first", warrenv1.UpdateOrder_UPDATE_ORDER_START_FIRST},
		{"stop-first", warrenv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST},
	}
)

type choice[T any] struct {
	word  string
	value T
}

// choose sets *to to what the word given means; nil sets nothing.
func choose[T any](flag string, given *string, to *T, choices []choice[T]) error {
	if given == nil {
		return nil
	}
	known := make([]string, len(choices))
	for i, c := range choices {
		if c.word == *given {
			*to = c.value
			return nil
		}
		known[i] = c.word
	}
	return fmt.Errorf("%s is %q, but can be %s", flag, *given, strings.Join(known, " or "))
}

// set sets *to to what was given.
func set[T any](to, given *T) {
	if given != nil {
		*to = *given
	}
}

func setDuration(to **durationpb.Duration, given *time.Duration) {
	if given != nil {
		*to = durationpb.New(*given)
	}
}

// made returns *to, having made it if it was not there.
func made[T any](to **T) *T {
	if *to == nil {
		*to = new(T)
	}
	return *to
}
