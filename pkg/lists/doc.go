// Package lists reads lists of known attackers, keeps out of them what a list must never name, and merges several
// into what the kernel is to hold.
package lists
