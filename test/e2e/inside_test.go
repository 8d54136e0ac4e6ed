//go:build linux

package e2e

import "slices"

// inside is what runs on a machine for the image's program to run inside a container that runs there: that of a task,
// given as web.1, or of any of a service's. It enters by itself: ctr, asked to, may end before it has passed on
// all that the program said.
const inside = `
task=$1 process=
shift
running=$(ctr -n warren tasks ls | awk '$3 == "RUNNING" { print $1, $2 }')
for one in $(ctr -n warren containers ls -q "labels.\"warren.task.name\"==$task" "labels.\"warren.service.name\"==$task"); do
	found=$(echo "$running" | awk -v one="$one" '$1 == one { print $2 }')
	process=${found:-$process}
done
if [ -z "$process" ]; then
	echo "no container of $task runs here" >&2
	exit 125
fi
exec env -i nsenter --target "$process" --mount --uts --ipc --net --root --wd /hello "$@"`

// place makes "in M TASK ARG..." into "on M COMMAND...", which it also may be.
func place(args []string) []string {
	if len(args) < 3 || args[0] != "in" {
		return args
	}
	return slices.Concat([]string{"on", args[1], "sh", "-c", inside, "sh"}, args[2:])
}
