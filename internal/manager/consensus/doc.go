// Package consensus is one manager's part in agreeing on the state: the raft node.
//
// Start with Node. Open starts raft over what the data folder holds; Bootstrap makes a new
// cluster of one; Propose writes transactions and returns when they are durable and applied, or
// refused. Proposals that arrive while raft is busy are gathered and written as one entry (group
// commit): a lone write costs one disk sync, a thousand at once cost a few.
//
// The package does not know what the transactions mean; that is the state package's matter. It is
// the only one that starts raft.
package consensus
