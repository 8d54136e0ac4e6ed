# Runs in the machine, once it has booted: the tests, with their output and then their exit status going
# out through the port, and the end of the machine.
exec >/dev/virtio-ports/results 2>&1
cd /usr/local/share/kernel-test
status=0
# All of the kernel's WireGuard but the number of random histories: each takes half a second here.
if [ -e wireguard.test ]; then
	./wireguard.test -test.v=test2json -test.parallel 2 -test.timeout 4m -rapid.checks=10 || status=$?
fi
# One script at a time: each looks at all that is on the machine.
if [ -e guest.test ]; then
	WARREN_TEST_GUEST=yes ./guest.test -test.v=test2json -test.parallel 1 -test.timeout 8m || status=$?
fi
echo "guest-exit-status: $status"
systemctl poweroff --force --force
