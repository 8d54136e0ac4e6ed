// Package view says how Warren's objects look to people: which columns their tables have, the words of
// states, ages and amounts, and the page that describes one object in full.
//
// It is pure: objects and the present time in, tables and text out. It decides nothing about widths,
// colours on or off, or machine formats; package output does.
//
// Start reading at Services, Tasks and Nodes, the three tables.
package view
