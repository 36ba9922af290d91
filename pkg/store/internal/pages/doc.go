// Package pages reads a bbolt file page by page, without mapping it into memory, and says whether all that bbolt would
// follow lies within the file and makes sense.
//
// bbolt itself trusts its file, and its own check of one (Tx.Check) cannot take the place of this package: it runs in
// a goroutine of bbolt's, where a key beyond the mapping is a fault that ends the process whatever its caller does,
// and it follows a page that points to itself until the stack is full. Where bbolt once reads damaged files safely,
// this package can go.
package pages
