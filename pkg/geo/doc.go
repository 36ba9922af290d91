// Package geo tells where an address is registered, from files in MaxMind's format that are read again when replaced.
package geo
