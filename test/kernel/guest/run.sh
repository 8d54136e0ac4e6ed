# Runs in the machine, once it has booted, where the second drive is unpacked: the tests, with their output and then their exit
# status going out through the port, and the end of the machine.
exec >/dev/virtio-ports/results 2>&1
status=0
# One script at a time: each looks at all that is on the machine.
if [ -e guest.test ]; then
	WARREN_TEST_GUEST=yes ./guest.test -test.v=test2json -test.parallel 1 -test.timeout 25m || status=$?
fi
# All of the kernel's WireGuard but the number of random histories: each takes half a second here. These come last, because
# they are not held to what the agent's unit allows, and what they have the kernel load is there for everyone.
if [ -e wireguard.test ]; then
	./wireguard.test -test.v=test2json -test.parallel 2 -test.timeout 8m -rapid.checks=10 || status=$?
fi
echo "guest-exit-status: $status"
systemctl poweroff --force --force
