// Package fakemanager is a small manager in memory for the tests of warrenctl: the real API over a
// real socket, with the real field rules, versions, pages and watches, and no cluster behind it.
//
// Its tasks come to rest at once, and where depends on the image: one whose name contains "missing" is
// rejected for want of an image, "crash" loops, "slow" stays in preparation until Release is called,
// "once" completes, "sick" is unhealthy; all others run. How rollouts go is said in rollouts.go. Its
// certificate authority is a real one. Only tests import it.
//
// Start reading at Start.
package fakemanager
