//go:build linux

package e2e

import "slices"

// inside is what runs on a machine for the image's program to run inside the container of a task, given as
// web.1, that runs there; of several, in the latest.
const inside = `
task=$1 container=
shift
running=$(ctr -n warren tasks ls | awk '$3 == "RUNNING" { print $1 }')
for one in $(ctr -n warren containers ls -q "labels.\"warren.task.name\"==$task"); do
	if echo "$running" | grep -Fqx -e "$one"; then container=$one; fi
done
if [ -z "$container" ]; then
	echo "no container of $task runs here" >&2
	exit 125
fi
exec ctr -n warren tasks exec --exec-id "exec-$$" "$container" /hello "$@"`

// place makes "in M TASK ARG..." into "on M COMMAND...", which it also may be.
func place(args []string) []string {
	if len(args) < 3 || args[0] != "in" {
		return args
	}
	return slices.Concat([]string{"on", args[1], "sh", "-c", inside, "sh"}, args[2:])
}
