// Package logs keeps what containers write to their output on the node's disk, and reads it back.
//
// Each task has a folder of numbered files, 0.log, 1.log …, of which the oldest goes when there are
// too many. A file is lines of the form `2026-01-02T15:04:05.000000001Z stdout F text`, the one the
// Kubernetes runtimes write, so that common shippers can read it; P in the place of F says that
// the text goes on in the stream's next entry.
//
// A container's output comes through a named pipe of 1 MiB for each stream. The container's shim,
// not the agent, holds the writing end, so a container neither ends nor blocks because the agent is
// away: it fills the pipe, and the agent drains it when it is back. A pipe and what is in it last as long
// as somebody has it open; who else does while the agent is away is for package runtime to see to. See MakePipe
// and Writer.Pump. What the agent gave the kernel is in the file; a line torn by a crash of the machine is
// passed over when it is read, and cut off when the file is next written.
//
// The package owns the files under the folder it was opened with and nothing else; it does not know
// what a container is, and never lets one wait for a full disk. Start with Store.
package logs
