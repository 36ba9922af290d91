// Package humanize writes numbers, durations, counts, names and prefixes for a person, in the same words wherever
// they are shown.
package humanize
