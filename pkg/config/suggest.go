package config

import (
	"reflect"
	"strings"
)

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
	for _, s := range allSettings() {
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
