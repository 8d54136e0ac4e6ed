// Actor is the program in the image of this package's tests.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/cuemby/warren/internal/agent/initproc"
)

func main() {
	if initproc.Invoked(os.Args) {
		os.Exit(initproc.Run(os.Args[1:]))
	}
	args := append(os.Args[1:], "sleep")
	switch args[0] {
	case "sleep":
		sleep()
	case "echo":
		fmt.Println(strings.Join(args[1:len(args)-1], " "))
	case "complain":
		fmt.Fprintln(os.Stderr, strings.Join(args[1:len(args)-1], " "))
	case "exit":
		code, _ := strconv.Atoi(args[1])
		fmt.Println("exiting with", code)
		os.Exit(code)
	case "eat":
		eat()
	case "show":
		show()
	case "count":
		count(args[1])
	case "orphan":
		orphan()
	case "family":
		family()
	case "write":
		if err := os.WriteFile(args[1], []byte("written\n"), 0o600); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "cat":
		text, err := os.ReadFile(args[1])
		fmt.Print(string(text))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

// sleep says what signals it gets, and ends with SIGTERM or SIGINT.
func sleep() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
	fmt.Println("ready")
	for s := range signals {
		fmt.Println("got", s)
		if s != syscall.SIGUSR1 {
			return
		}
	}
}

func eat() {
	var kept [][]byte
	for {
		block := make([]byte, 1<<20)
		for i := range block {
			block[i] = 1
		}
		kept = append(kept, block)
	}
}

// count writes numbered lines and ends.
func count(text string) {
	n, _ := strconv.Atoi(text)
	out := bufio.NewWriter(os.Stdout)
	for i := range n {
		fmt.Fprintln(out, "line", i)
	}
	out.Flush()
}

// orphan leaves a child of a child behind, and waits for it to be reaped by process 1.
func orphan() {
	if len(os.Args) > 2 && os.Args[2] == "parent" {
		child := exec.Command(os.Args[0], "exit", "0")
		if err := child.Start(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("orphan", child.Process.Pid)
		return
	}
	output, err := exec.Command(os.Args[0], "orphan", "parent").Output()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for line := range strings.Lines(string(output)) {
		if pid, found := strings.CutPrefix(strings.TrimSpace(line), "orphan "); found {
			for {
				if _, err := os.Stat("/proc/" + pid); err != nil {
					fmt.Println("reaped, and I am process", os.Getpid())
					return
				}
				syscall.Sync() // let others run
			}
		}
	}
}

// family hangs, and so does its child.
func family() {
	child := exec.Command(os.Args[0], "sleep")
	if err := child.Start(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, "child runs")
	child.Wait()
}

// Seen is what a program finds around itself.
type Seen struct {
	Args, Env  []string
	Cwd        string
	UID, GID   int
	Groups     []int
	Hostname   string
	Status     map[string]string
	Core       syscall.Rlimit
	Hosts      string
	ResolvConf string
	Mounts     string
	Interfaces []string
	Sysctl     string
}

func show() {
	cwd, _ := os.Getwd()
	hostname, _ := os.Hostname()
	groups, _ := os.Getgroups()
	hosts, _ := os.ReadFile("/etc/hosts")
	resolvConf, _ := os.ReadFile("/etc/resolv.conf")
	mounts, _ := os.ReadFile("/proc/self/mounts")
	somaxconn, _ := os.ReadFile("/proc/sys/net/core/somaxconn")
	seen := Seen{
		Args: os.Args, Env: os.Environ(), Cwd: cwd, UID: os.Getuid(), GID: os.Getgid(), Groups: groups,
		Hostname: hostname, Hosts: string(hosts), ResolvConf: string(resolvConf), Mounts: string(mounts), Status: map[string]string{},
		Sysctl: strings.TrimSpace(string(somaxconn)),
	}
	_ = syscall.Getrlimit(syscall.RLIMIT_CORE, &seen.Core)
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		seen.Status[name] = strings.TrimSpace(value)
	}
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		seen.Interfaces = append(seen.Interfaces, i.Name+" "+i.Flags.String())
	}
	// Lines of a log are cut at 16 KiB.
	text, _ := json.MarshalIndent(seen, "", " ")
	fmt.Println(string(text))
}
