package runtime

import (
	"fmt"
	"strconv"
	"strings"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Labels of our containers in containerd: what is needed to recognise them, and to take them up again
// after the agent has forgotten everything.
const (
	labelPrefix      = "warren."
	labelTask        = "warren.task"
	labelTaskName    = "warren.task.name"
	labelAttempt     = "warren.attempt"
	labelService     = "warren.service"
	labelServiceName = "warren.service.name"
	labelNode        = "warren.node"
	labelDigest      = "warren.image.digest"
	labelStopSignal  = "warren.stop-signal"
	labelLogSize     = "warren.log.max-size"
	labelLogFiles    = "warren.log.max-files"
	labelRun         = "warren.run" // of leases: the run of the agent that took it
)

// labelLimit is how many bytes containerd takes for a label and its value together.
const labelLimit = 4096

func containerLabels(c Container, stopSignal string) (map[string]string, error) {
	labels := map[string]string{
		labelTask:        c.TaskID,
		labelTaskName:    c.TaskName,
		labelAttempt:     strconv.FormatUint(uint64(c.Attempt), 10),
		labelService:     c.ServiceID,
		labelServiceName: c.ServiceName,
		labelNode:        c.NodeID,
		labelDigest:      c.Image.Digest,
		labelStopSignal:  stopSignal,
		labelLogSize:     strconv.FormatInt(c.Spec.GetLog().GetMaxSizeBytes(), 10),
		labelLogFiles:    strconv.FormatUint(uint64(c.Spec.GetLog().GetMaxFiles()), 10),
	}
	for key, value := range c.Spec.GetContainer().GetLabels() {
		switch {
		case strings.HasPrefix(key, labelPrefix):
			return nil, fmt.Errorf("label %s: labels that begin with %q are Warren's own; choose another name", key, labelPrefix)
		case strings.HasPrefix(key, "containerd.io/"):
			return nil, fmt.Errorf("label %s: labels that begin with %q are containerd's own; choose another name", key, "containerd.io/")
		case len(key)+len(value) > labelLimit:
			return nil, fmt.Errorf("label %s: with its value it is longer than %d bytes", key, labelLimit)
		}
		labels[key] = value
	}
	return labels, nil
}

func logOptions(labels map[string]string) *warrenv1.LogOptions {
	// What was written by containerLabels parses; a zero means the default anyway.
	size, _ := strconv.ParseInt(labels[labelLogSize], 10, 64)
	files, _ := strconv.ParseUint(labels[labelLogFiles], 10, 32)
	return &warrenv1.LogOptions{MaxSizeBytes: size, MaxFiles: uint32(files)}
}
