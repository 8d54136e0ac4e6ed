// Package specflags turns the flags of `service create` and `service update` into service specs.
//
// The flags carry the names, the units and the small grammars that `docker service` gives them where
// the meaning is the same. Create builds a spec from nothing; Update changes what was given in a spec
// that was read, and nothing else. Both are pure apart from the environment and the files that --env
// and --env-file name. The package checks what only it can know (the grammar of a flag, two flags that
// exclude each other); the rules of the spec itself are the manager's, and FlagOf tells which flag a
// field that the manager refuses came from.
//
// Start reading at Settings, the flags that both commands share, then Create.Spec and Update.Apply.
package specflags
