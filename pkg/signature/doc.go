// Package signature knows the marks by which scanners' programs give themselves away in one request: names in
// User-Agent, addresses in From, To and Contact, and code that somebody injects into user and host. A mark is a line of
// a list, the built-in one or a file of the administrator's. It fits whole words only: what is a part of a customer's
// name for his phone is no mark.
package signature
