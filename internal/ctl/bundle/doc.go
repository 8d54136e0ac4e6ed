// Package bundle makes the file that goes with a bug report: a .tar.gz of texts, out of which what is secret has been
// taken.
//
// Start with Redactor, which knows what is secret: by what the API says of its fields, by the values of environment
// variables, which are taken out wherever they occur, and by how tokens, keys and passwords look. Archive writes the
// file.
package bundle
