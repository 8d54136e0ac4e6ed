package runtime

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// healthExtension is what a container's record carries of its image's HEALTHCHECK: the image may be gone when an agent
// takes the container up again.
const healthExtension = "warren.health"

// imageHealth reads an image's HEALTHCHECK, which is Docker's addition to the configuration of images. One that
// makes no sense is as good as none: it is not the user's fault.
func imageHealth(config []byte) *warrenv1.HealthCheck {
	var image struct {
		Config struct {
			Shell       []string
			Healthcheck *struct {
				Test                                          []string
				Interval, Timeout, StartPeriod, StartInterval time.Duration
				Retries                                       int
			}
		} `json:"config"`
	}
	if json.Unmarshal(config, &image) != nil || image.Config.Healthcheck == nil {
		return nil
	}
	check := image.Config.Healthcheck
	if len(check.Test) < 2 {
		return nil // NONE, or nothing
	}
	probe := &warrenv1.ExecProbe{}
	switch kind, test := check.Test[0], check.Test[1:]; {
	case kind == "CMD":
		probe.Command = test
	case kind == "CMD-SHELL" && len(image.Config.Shell) > 0:
		probe.Command = slices.Concat(image.Config.Shell, test[:1])
	case kind == "CMD-SHELL":
		probe.Command, probe.Shell = test[:1], true
	default:
		return nil
	}
	return &warrenv1.HealthCheck{
		Probe:         &warrenv1.HealthCheck_Exec{Exec: probe},
		Interval:      positive(check.Interval),
		Timeout:       positive(check.Timeout),
		StartPeriod:   positive(check.StartPeriod),
		StartInterval: positive(check.StartInterval),
		Retries:       uint32(min(max(0, check.Retries), 1000)),
	}
}

func positive(d time.Duration) *durationpb.Duration {
	if d <= 0 {
		return nil
	}
	return durationpb.New(d)
}

// healthExtensions is how a container's record carries it.
func healthExtensions(health *warrenv1.HealthCheck) (map[string]typeurl.Any, error) {
	if health == nil {
		return nil, nil
	}
	packed, err := anypb.New(health)
	if err != nil {
		return nil, err
	}
	return map[string]typeurl.Any{healthExtension: packed}, nil
}

func recordedHealth(extensions map[string]typeurl.Any) *warrenv1.HealthCheck {
	packed, ok := extensions[healthExtension]
	if !ok {
		return nil
	}
	health := &warrenv1.HealthCheck{}
	if proto.Unmarshal(packed.GetValue(), health) != nil {
		return nil // not written by us
	}
	return health
}
