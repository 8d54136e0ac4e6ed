# Lists what is left of the containers of a containerd namespace ($1), kept under a cgroup ($2).
namespace=$1 parent=$2

label() { sed -e '/^$/d' -e "s|^|$1 |"; }

containers=$(ctr -n "$namespace" containers ls -q)
tasks=$(ctr -n "$namespace" tasks ls -q)
snapshots=$(ctr -n "$namespace" snapshots ls)
leases=$(ctr -n "$namespace" leases ls -q)
printf '%s\n' "$containers" | label container
printf '%s\n' "$tasks" | label task
printf '%s\n' "$snapshots" | awk 'NR > 1 && $NF != "Committed" { print $1 }' | label snapshot
printf '%s\n' "$leases" | label lease
ps -eo pid=,args= | awk -v ns="$namespace" '/[c]ontainerd-shim/ && $0 ~ "-namespace " ns "( |$)"' | label shim
awk -v ns="$namespace" '
	/ - nsfs / { print "namespace " $5 }
	$5 ~ "^/run/containerd/io.containerd.runtime.v2.task/" ns "/" { print "mount " $5 }
	$5 ~ "^/(run|var/lib)/warren/" || $5 ~ "^/tmp/" { print "mount " $5 }
' /proc/self/mountinfo
ls "/run/containerd/io.containerd.runtime.v2.task/$namespace" 2>/dev/null | label bundle
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
	[ -d "$hierarchy$parent" ] && find "$hierarchy$parent" -mindepth 1 -type d | label cgroup
done
ip -o link | awk -F': ' '{ sub(/@.*/, "", $2); if ($2 !~ /^(lo|eth0|warren0|warren-wg)$/) print $2 }' | label link
ls /var/lib/warren/agent/logs 2>/dev/null | label output
ls /run/warren/agent/containers 2>/dev/null | label state
# Of the packet rules, what is about the machine's own tasks.
for table in $(nft list tables ip 2>/dev/null | awk '$3 ~ /^warren-/ { print $3 }'); do
	{
		nft list map ip "$table" sources
		nft list set ip "$table" local
	} 2>/dev/null | tr '\n' ' ' | grep -o 'elements = {[^}]*}' | grep -oE '[0-9]+(\.[0-9]+){3}' | sort -u | label rule
done
