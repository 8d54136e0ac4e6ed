// Package consensus is one manager's part in agreeing on the state: the raft node.
//
// Start with Node. Open starts raft over what the data folder holds; Bootstrap makes a new cluster of
// one, membership.go lets others into it and out of it; Propose writes transactions and returns when
// they are durable and applied, or refused. Proposals that arrive while raft is busy are gathered and
// written as one entry (group commit): a lone write costs one disk sync, a thousand at once cost a few.
// Whoever answers from the state asks VerifyLeader first, or the answer may be one that was true before
// another manager took the lead.
//
// The package does not know what the transactions mean; that is the state package's matter. It is
// the only one that starts raft.
package consensus
