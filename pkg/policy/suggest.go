package policy

import (
	"reflect"
	"strings"
)

// nearest returns the candidate that word was probably meant to be, or "".
func nearest(word string, candidates []string) string {
	if len(word) == 0 || len(word) > 64 {
		return ""
	}
	word = strings.ToLower(strings.ReplaceAll(word, "-", "_"))
	best, bestDistance := "", 1+max(1, len(word)/3)
	for _, c := range candidates {
		if word == strings.ToLower(c) {
			return c
		}
		if len(word) > 3 && len(c) > 3 && (strings.HasPrefix(word, c) || strings.HasPrefix(c, word)) {
			best, bestDistance = c, 1 // warning for warn, addr for address
			continue
		}
		if d := editDistance(word, strings.ToLower(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// editDistance counts insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// pathInOtherSection returns the whole path of the key that word names in another section or in another program.
func pathInOtherSection(word string) string {
	word = strings.ToLower(strings.ReplaceAll(word, "-", "_"))
	switch word {
	case "password", "passwd", "pass":
		return "asterisk[].secret"
	case "user", "login":
		return "asterisk[].username"
	case "host", "hostname", "server", "port":
		return "asterisk[].address"
	case "maxretry":
		return "policy.threshold"
	case "findtime":
		return "policy.half_life"
	case "bantime":
		return "policy.ban.first"
	case "ignoreip", "whitelist", "allowlist":
		return "policy.allow"
	case "webhook", "webhooks", "notification", "notifications", "alert", "alerts", "destemail":
		return "notify"
	case "geoip", "geoip2", "geolite2", "maxmind", "mmdb":
		return "geo"
	case "dry_run", "dryrun":
		return "policy.mode"
	}
	found := ""
	for _, s := range settings() {
		if s.path == word || strings.HasSuffix(s.path, "."+word) {
			if found != "" {
				return "" // enabled, accounts …: which one is meant is a guess
			}
			found = s.path
		}
	}
	return found
}

// notInFile is the name of fields that are no key of the file.
const notInFile = "-"

// keyName is a field's name in the file.
func keyName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
	return name
}

// isSection says whether values of t are mappings with fixed keys in the file.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t != reflect.TypeFor[Secret]() && t != reflect.TypeFor[AllowEntry]()
}
