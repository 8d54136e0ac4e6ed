# Runs in the machine, once it has booted: the test, with its output and then its exit status going out
# through the port, and the end of the machine.
exec >/dev/virtio-ports/results 2>&1
cd /usr/local/share/kernel-test
status=0
# One script at a time: each looks at all that is on the machine.
WARREN_TEST_GUEST=yes ./guest.test -test.v=test2json -test.parallel 1 -test.timeout 8m || status=$?
echo "guest-exit-status: $status"
systemctl poweroff --force --force
