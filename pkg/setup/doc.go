// Package setup lets Ringwall in at the Asterisk of this machine: it finds out who writes Asterisk's configuration
// there, plans a manager user, a secret and a configuration, writes them, and takes away what it wrote. What is not its
// own it never overwrites; of another's file it only ever appends to, one that is meant for such lines. A journal knows
// what was written, so that an undo leaves each byte as it was.
package setup
