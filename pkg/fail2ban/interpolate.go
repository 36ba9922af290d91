package fail2ban

import (
	"fmt"
	"strings"

	"github.com/ringwall/ringwall/pkg/printable"
)

// Bounds of %(name)s. The depth is configparser's own (MAX_INTERPOLATION_DEPTH).
const (
	maxDepth = 10
	maxValue = 64 << 10
	maxSteps = 100_000 // of a whole configuration
)

// interpolatedOption returns an option of a section with every %(name)s filled in; a missing one is not ok. The error
// says what cannot be filled in.
func (c *jailConfig) interpolatedOption(name, key string) (value string, ok bool, err error) {
	raw, ok := c.rawOption(name, key)
	if !ok {
		return "", false, nil
	}
	value, err = c.interpolate(name, raw, 0)
	return value, true, err
}

// rawOption knows fail2ban's forms section/key, default/key and known/key (the value that a later file replaced).
func (c *jailConfig) rawOption(name, key string) (string, bool) {
	if v, ok := c.sections[name][key]; ok {
		return v, true
	}
	switch key {
	case "__name__":
		return name, true
	case "fail2ban_confpath":
		return strings.ReplaceAll(c.dir, "%", "%%"), true
	case "fail2ban_version":
		return "0", true
	}
	if s, k, ok := strings.Cut(key, "/"); ok {
		switch strings.ToLower(s) {
		case "default":
			s = defaultsSection
		case "known":
			s = replacedPrefix + name
		}
		if v, ok := c.sections[s][k]; ok {
			return v, true
		}
		v, ok := c.sections[defaultsSection][k]
		return v, ok
	}
	v, ok := c.sections[defaultsSection][key]
	return v, ok
}

func (c *jailConfig) interpolate(name, raw string, depth int) (string, error) {
	if !strings.Contains(raw, "%") {
		return raw, nil
	}
	if depth > maxDepth {
		return "", fmt.Errorf("%%(name)s stands in itself, or more than %d deep", maxDepth)
	}
	var b strings.Builder
	for rest := raw; rest != ""; {
		i := strings.IndexByte(rest, '%')
		if i < 0 {
			b.WriteString(rest)
			break
		}
		b.WriteString(rest[:i])
		rest = rest[i+1:]
		if strings.HasPrefix(rest, "%") {
			b.WriteByte('%')
			rest = rest[1:]
			continue
		}
		inner, after, ok := strings.Cut(rest, ")s")
		if !ok || !strings.HasPrefix(inner, "(") {
			return "", fmt.Errorf("a %% that is neither %%%% nor %%(name)s")
		}
		key := strings.ToLower(inner[1:])
		if s, k, ok := strings.Cut(inner[1:], "/"); ok {
			key = s + "/" + strings.ToLower(k)
		}
		if c.steps++; c.steps > maxSteps {
			return "", fmt.Errorf("there are more than %d %%(name)s to fill in", maxSteps)
		}
		value, found := c.rawOption(name, key)
		if !found {
			return "", fmt.Errorf("nothing is named %s", printable.Quote(inner[1:]))
		}
		value, err := c.interpolate(name, value, depth+1)
		if err != nil {
			return "", err
		}
		b.WriteString(value)
		if b.Len() > maxValue {
			return "", fmt.Errorf("with all %%(name)s filled in it is longer than %d bytes", maxValue)
		}
		rest = after
	}
	return b.String(), nil
}

// quotePath shortens nothing that is a path, for its end is what people look for.
func quotePath(s string) string { return `"` + printable.Limit(s, 1000) + `"` }
