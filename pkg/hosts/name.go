package hosts

import "strings"

// ValidName reports whether s is a name that a machine on the Internet can have (RFC 1123, section 2.1): as
// [NormalizeName] takes it, but without underscores, which only names of containers and the like have.
func ValidName(s string) bool {
	_, ok := NormalizeName(s)
	return ok && !strings.Contains(s, "_")
}
