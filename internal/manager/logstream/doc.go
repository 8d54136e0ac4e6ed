// Package logstream serves the output of tasks to users: the LogService.
//
// Start with Service.StreamLogs. A reading is one call: it asks the node of each task for a stream
// through the relay, merges what was there when the reading began by time, and then passes on what
// comes as it comes. With follow it joins tasks that appear later and takes up again what broke
// when its node is back.
//
// Of each task one batch of lines is held at most: a user who does not read stops the nodes, by the
// flow control under the relay. What a user must know of what is missing is told in notices, and no
// task that stays silent holds up the others for long.
package logstream
