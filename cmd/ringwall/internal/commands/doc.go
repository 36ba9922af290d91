// Package commands is the command line: flags in, questions to the daemon, tables or JSON out. What runs for long is
// given to it as functions.
package commands
