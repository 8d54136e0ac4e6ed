// Package digest writes texts in which images are named by their digests for people: who reads a line of events knows an image by
// twelve digits, and does not read sixty-four.
//
// It changes texts that are told, never what is kept of an image or what a program compares.
package digest
