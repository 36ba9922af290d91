// Package pages reads a bbolt file page by page, without mapping it into memory, and says whether all that bbolt would
// follow lies within the file and makes sense. bbolt itself trusts its file: a damaged one makes it panic, loop or fault.
package pages
