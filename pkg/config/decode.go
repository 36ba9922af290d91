package config

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ringwall/ringwall/pkg/hint"
)

const (
	maxNodes  = 1 << 20 // values looked at, those behind aliases counted each time
	maxList   = 10_000  // entries of one list
	maxErrors = 50      // mistakes reported at once
)

// parser is one configuration while it is read: where each value stands, and what is wrong with it.
type parser struct {
	name         string
	env          Environment
	valueNodes   map[string]*yaml.Node // by path: the values that the file gives
	failed       map[string]bool       // by path: a mistake has been reported
	settings     []setting             // all keys
	lastWords    []string              // their names
	secrets      []string              // texts that must not be shown
	mistakes     Errors
	warnings     []Warning
	nodesVisited int
}

// detail is the optional part of an [Error].
type detail struct {
	value, allowed, hint string
	cause                error
	outside              bool // see Error
}

// fail reports a mistake at the value of path, or at what holds it when the file does not give it.
func (ps *parser) fail(path, what string, d detail) {
	ps.failAt(ps.nodeAt(path), path, what, d)
}

func (ps *parser) failAt(n *yaml.Node, path, what string, d detail) {
	ps.failed[path] = true
	if len(ps.mistakes) > maxErrors {
		return
	}
	e := &Error{File: ps.name, Key: path, What: what, Value: d.value, Allowed: d.allowed, Try: d.hint, cause: d.cause,
		outside: d.outside}
	if n != nil {
		e.Line, e.Column = n.Line, n.Column
	}
	if len(ps.mistakes) == maxErrors {
		e.Key, e.What, e.Value, e.Allowed, e.Try = "", "more mistakes follow", "", "", "correct the ones above first"
	}
	ps.mistakes = append(ps.mistakes, e)
}

func (ps *parser) warn(path, what string, d detail) {
	w := Warning{File: ps.name, Key: path, What: what, Value: d.value, Try: d.hint}
	if n := ps.nodeAt(path); n != nil {
		w.Line, w.Column = n.Line, n.Column
	}
	if len(ps.warnings) < maxErrors {
		ps.warnings = append(ps.warnings, w)
	}
}

// nodeAt returns the value at path, or the nearest one around it that the file gives.
func (ps *parser) nodeAt(path string) *yaml.Node {
	for {
		if n := ps.valueNodes[path]; n != nil {
			return n
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return ps.valueNodes[""]
		}
		path = path[:i]
	}
}

// isGiven reports whether the file has the key, with nothing wrong found so far.
func (ps *parser) isGiven(path string) bool { return ps.valueNodes[path] != nil && !ps.failed[path] }

// shownValue is the value at path as the file writes it, quoted; empty if it is no text or could be a secret.
func (ps *parser) shownValue(path string) string {
	n := ps.valueNodes[path]
	if n == nil || n.Kind != yaml.ScalarNode || strings.HasSuffix(path, ".secret") || strings.HasSuffix(path, ".url") ||
		strings.HasSuffix(path, ".token") || strings.Contains(path, ".headers") {
		return ""
	}
	return ps.quoteUnlessSecret(n.Value)
}

// quoteUnlessSecret hides what may hold a secret: "username: ringwall" with "secret:1234" below it, indented too far,
// is one value.
func (ps *parser) quoteUnlessSecret(text string) string {
	for _, s := range ps.secrets {
		if strings.Contains(text, s) {
			return hidden
		}
	}
	if mentionsSecret(text) {
		return hidden
	}
	return quote(text)
}

func mentionsSecret(text string) bool {
	text = strings.ToLower(text)
	for _, word := range []string{"secret", "passw"} {
		if i := strings.Index(text, word); i >= 0 && strings.ContainsAny(text[i:], " :=") {
			return true
		}
	}
	return false
}

// collectSecrets finds the values of keys that look like a secret's, wherever they stand.
func (ps *parser) collectSecrets(n *yaml.Node) {
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && c.Kind == yaml.ScalarNode && i+1 < len(n.Content) &&
			ps.secretKey(c.Value) {
			ps.collectTexts(n.Content[i+1], c.Value)
		}
		ps.collectSecrets(c)
	}
}

func (ps *parser) collectTexts(n *yaml.Node, of string) {
	if n.Kind == yaml.MappingNode && of == "headers" {
		for i := 1; i < len(n.Content); i += 2 { // their names are no secret
			ps.collectTexts(n.Content[i], "")
		}
		return
	}
	if n.Kind == yaml.ScalarNode && len(n.Value) >= 3 && len(ps.secrets) < 1000 {
		ps.secrets = append(ps.secrets, n.Value)
	}
	for _, c := range n.Content {
		ps.collectTexts(c, "")
	}
}

// secretKey says whether a key is, or was meant to be, one that holds a secret.
func (ps *parser) secretKey(key string) bool {
	near := hint.Nearest(key, []string{"secret", "url", "token", "headers"})
	if near != "" {
		near = hint.Nearest(key, ps.lastWords) // "socket" is near, and a key of its own
	}
	key = strings.ToLower(key)
	return slices.Contains([]string{"secret", "url", "token", "headers"}, near) ||
		near != "secret_file" && strings.Contains(key, "secret") || strings.Contains(key, "pass")
}

// resolveAlias follows an alias. ok is false when the file has been looked at for too long: aliases can multiply it.
func (ps *parser) resolveAlias(n *yaml.Node) (target *yaml.Node, ok bool) {
	if ps.nodesVisited++; ps.nodesVisited > maxNodes {
		return nil, false
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n, n != nil
}

// decodeValue puts the value n, which stands at path, into v, which holds the default.
func (ps *parser) decodeValue(n *yaml.Node, path string, v reflect.Value) {
	if len(ps.mistakes) > maxErrors {
		return
	}
	n, ok := ps.resolveAlias(n)
	if !ok {
		if !ps.failed[""] {
			ps.fail("", "too many values", detail{hint: "fewer aliases (*name)"})
		}
		return
	}
	ps.valueNodes[path] = n
	if n.Style&yaml.TaggedStyle != 0 && !strings.HasPrefix(n.Tag, "!!") {
		ps.fail(path, "a value begins with !", detail{hint: "put it in double quotes"})
		return
	}
	isNull := n.Kind == yaml.ScalarNode && n.Tag == "!!null"
	t := v.Type()
	switch {
	case t == reflect.TypeFor[Ports]() && !isNull:
		ps.decodePorts(n, path, v)
		return
	case isSection(t):
		if !isNull {
			ps.decodeSection(n, path, v)
		}
		return
	case t == reflect.TypeFor[map[string]Secret]():
		if !isNull {
			ps.decodeHeaders(n, path, v)
		}
		return
	case isMultiplier(t):
		if !isNull {
			ps.decodeMultipliers(n, path, v)
		}
		return
	case t.Kind() == reflect.Map:
		if !isNull {
			ps.decodeServices(n, path, v)
		}
		return
	case t.Kind() == reflect.Slice:
		if !isNull {
			ps.decodeList(n, path, v)
		}
		return
	}
	if n.Kind != yaml.ScalarNode {
		ps.fail(path, fmt.Sprintf("%s where %s belongs", nodeKind(n), typeName(t)), detail{})
		return
	}
	if isNull {
		hint := `remove the key for the default; a value that begins with # & * ! or is "null" belongs in double quotes`
		if strings.HasSuffix(path, "]") { // of a list
			hint = "remove it"
			if n.Value != "" {
				hint = strconv.Quote(n.Value)
			}
		}
		ps.fail(path, "no value", detail{allowed: typeName(t), hint: hint})
		return
	}
	ps.decodeScalar(n, path, v)
}

// decodeSection decodes a mapping whose keys are the fields of a struct.
func (ps *parser) decodeSection(n *yaml.Node, path string, v reflect.Value) {
	t := v.Type()
	fields := make(map[string]int, t.NumField())
	names := make([]string, 0, t.NumField())
	for i := range t.NumField() {
		if name := keyName(t.Field(i)); name != notInFile {
			names = append(names, name)
			fields[name] = i
		}
	}
	if n.Kind != yaml.MappingNode {
		what := nodeKind(n) + " where a section belongs"
		if path == "" {
			what = "the file holds " + nodeKind(n) + " where sections belong"
		}
		ps.fail(path, what, detail{allowed: "the keys " + strings.Join(names, ", "),
			hint: "key: value, with a space after the colon"})
		return
	}
	ps.eachKey(n, path, func(key *yaml.Node, at string, value *yaml.Node) {
		i, ok := fields[key.Value]
		if !ok {
			ps.failUnknownKey(key, value, at, names)
			return
		}
		ps.decodeValue(value, at, v.Field(i))
	})
}

// decodePorts decodes firewall.ports: the word auto, or the lists. Who writes one of them has decided for himself.
func (ps *parser) decodePorts(n *yaml.Node, path string, v reflect.Value) {
	p := v.Addr().Interface().(*Ports)
	if p.Auto = n.Kind == yaml.ScalarNode && n.Value == "auto"; p.Auto {
		return
	}
	if n.Kind != yaml.MappingNode {
		ps.fail(path, nodeKind(n)+" that is neither auto nor lists of ports", detail{value: ps.shownValue(path),
			allowed: "auto, or the keys udp, tcp", hint: "{udp: [5060], tcp: [5060, 5061]}"})
		return
	}
	ps.decodeSection(n, path, v)
}

func (ps *parser) failUnknownKey(key, value *yaml.Node, at string, names []string) {
	what, try := "unknown key", ""
	if resolved, ok := ps.resolveAlias(value); ok && slices.Contains(names, "half_life") {
		about, instead := ps.fromFail2ban(key.Value, resolved)
		if instead != "" {
			what = "a key of fail2ban's"
			if about != "" {
				what += "; " + about
			}
			ps.failed[strings.TrimSuffix(at, ps.pathOf("", key.Value))+strings.SplitN(instead, ":", 2)[0]] = true
			ps.failAt(key, at, what, detail{allowed: strings.Join(names, ", "), hint: instead})
			return
		}
	}
	near, other := hint.Nearest(key.Value, names), pathInOtherSection(key.Value)
	if leaf := other[strings.LastIndexByte(other, '.')+1:]; near == "" && slices.Contains(names, leaf) {
		near = leaf
	}
	switch {
	case near != "":
		what += ", did you mean " + near + "?"
		ps.failed[strings.TrimSuffix(at, ps.pathOf("", key.Value))+near] = true // it is not missing as well
	case other != "":
		what, try = "unknown key here", other
	case strings.Contains(key.Value, ":"):
		try = "a space after the colon"
	}
	ps.failAt(key, at, what, detail{allowed: strings.Join(names, ", "), hint: try})
}

// decodeServices decodes services, whose keys are Asterisk's; the ones that are not given keep their default.
func (ps *parser) decodeServices(n *yaml.Node, path string, v reflect.Value) {
	names := serviceNames(v.Interface().(map[string]Mode))
	if n.Kind != yaml.MappingNode {
		ps.fail(path, nodeKind(n)+" where a section belongs",
			detail{allowed: "the keys " + strings.Join(names, ", "), hint: "{SIP: observe}"})
		return
	}
	ps.eachKey(n, path, func(key *yaml.Node, at string, value *yaml.Node) {
		if old := v.MapIndex(reflect.ValueOf(key.Value)); !old.IsValid() {
			what := "unknown service"
			if near := cmp.Or(serviceOfDriver(key.Value), hint.Nearest(key.Value, names)); near != "" {
				what += ", did you mean " + near + "?"
			}
			ps.failAt(key, at, what, detail{allowed: strings.Join(names, ", ")})
			return
		}
		mode := reflect.New(v.Type().Elem()).Elem()
		ps.decodeValue(value, at, mode)
		if !ps.failed[at] {
			v.SetMapIndex(reflect.ValueOf(key.Value), mode)
		}
	})
}

// serviceOfDriver is the service of a channel driver, by which people know it.
func serviceOfDriver(name string) string {
	switch strings.TrimSuffix(strings.ToLower(name), ".so") {
	case "chan_pjsip", "res_pjsip":
		return "PJSIP"
	case "chan_sip":
		return "SIP"
	case "manager":
		return "AMI"
	case "chan_iax2":
		return "IAX2"
	case "ari", "res_ari":
		return "HTTP"
	}
	return ""
}

// decodeHeaders decodes headers, whose keys are the file's own and whose values may be secrets.
func (ps *parser) decodeHeaders(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		ps.fail(path, nodeKind(n)+" where a section belongs", detail{hint: `{X-Name: "value"}`})
		return
	}
	v.Set(reflect.ValueOf(make(map[string]Secret)))
	ps.eachKey(n, path, func(key *yaml.Node, at string, value *yaml.Node) {
		secret := reflect.New(v.Type().Elem()).Elem()
		ps.decodeValue(value, at, secret)
		if !ps.failed[at] && v.Len() < 100 {
			v.SetMapIndex(reflect.ValueOf(key.Value), secret)
		}
	})
}

// eachKey calls each with the keys of n, and reports the ones that no mapping of ours may have.
func (ps *parser) eachKey(n *yaml.Node, path string, each func(key *yaml.Node, at string, value *yaml.Node)) {
	lines := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, ok := ps.resolveAlias(n.Content[i])
		if !ok || len(ps.mistakes) > maxErrors {
			return
		}
		if key.Kind != yaml.ScalarNode {
			ps.failAt(key, path, "a key that is "+nodeKind(key), detail{allowed: "a word", hint: "key: value"})
			continue
		}
		if key.Tag == "!!merge" {
			ps.failAt(key, path, "merge keys (<<) are not read", detail{hint: "write the keys out"})
			continue
		}
		at := ps.pathOf(path, key.Value)
		if line, twice := lines[key.Value]; twice {
			ps.failAt(key, at, fmt.Sprintf("given twice, first in line %d", line), detail{hint: "remove one of them"})
			continue
		}
		lines[key.Value] = key.Line
		each(key, at, n.Content[i+1])
	}
}

// pathOf appends a key that the file may have invented.
func (ps *parser) pathOf(path, key string) string {
	if len(key) > 40 || strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" ||
		key == "" {
		key = ps.quoteUnlessSecret(key)
	} else if ps.quoteUnlessSecret(key) == hidden {
		key = hidden
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func (ps *parser) decodeList(n *yaml.Node, path string, v reflect.Value) {
	element := v.Type().Elem()
	if n.Kind != yaml.SequenceNode {
		hint := "[ and ] around it"
		switch {
		case isSection(element):
			hint = "- before the first key, and the other keys below it"
		case n.Kind == yaml.ScalarNode:
			hint = ps.asList(path, n.Value)
		}
		ps.fail(path, nodeKind(n)+" where a list belongs", detail{hint: hint})
		return
	}
	if len(n.Content) > maxList {
		ps.fail(path, fmt.Sprintf("a list of %d entries", len(n.Content)),
			detail{allowed: fmt.Sprintf("at most %d", maxList)})
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	entry := reflect.New(element).Elem()
	if isSection(element) {
		setDefaults(ps.settings, entry, path+"[].")
	}
	for i, c := range n.Content {
		v.Index(i).Set(entry)
		ps.decodeValue(c, path+"["+strconv.Itoa(i)+"]", v.Index(i))
	}
}

// decodeScalar decodes one value. Its texts are read here and not by yaml.v3, for which 010 is eight.
func (ps *parser) decodeScalar(n *yaml.Node, path string, v reflect.Value) {
	switch target := v.Addr().Interface().(type) {
	case *Secret:
		*target = Secret{n.Value}
		return
	case *time.Duration:
		ps.decodeDuration(n, path, target)
		return
	case *AllowEntry:
		ps.decodeAllowEntry(n.Value, path, target)
		return
	case **regexp.Regexp:
		ps.decodeRegexp(n.Value, path, target)
		return
	}
	quoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	wrong := detail{value: ps.quoteUnlessSecret(n.Value)}
	switch v.Kind() {
	case reflect.String:
		v.SetString(n.Value)
	case reflect.Bool:
		b, ok := parseBool(n.Value)
		if !ok || quoted {
			wrong.allowed = "true or false, without quotes"
			ps.fail(path, "not a yes or no", wrong)
			return
		}
		v.SetBool(b)
	case reflect.Float64:
		x, err := strconv.ParseFloat(n.Value, 64)
		if !isDecimal(n.Value, true) || err != nil || quoted {
			wrong.allowed, wrong.hint = "a number such as 10 or 2.5, without quotes", correctNumber(n.Value, true)
			ps.fail(path, "not a number", wrong)
			return
		}
		v.SetFloat(x + 0) // -0 becomes 0
	case reflect.Int, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		x, err := strconv.ParseInt(n.Value, 10, 64)
		if errors.Is(err, strconv.ErrRange) {
			err, x = nil, math.MaxInt64
		}
		if !isDecimal(n.Value, false) || err != nil || quoted {
			wrong.allowed, wrong.hint = "a whole number such as 10, without quotes", correctNumber(n.Value, false)
			if strings.HasPrefix(path, "firewall.ports.") {
				if wrong.hint = ps.entriesText(path, correctPorts(n.Value)); wrong.hint == "" &&
					strings.ContainsAny(n.Value, ":-") {
					wrong.hint = "each port by itself; firewall.scope: all closes every port"
				}
			}
			ps.fail(path, "not a whole number", wrong)
			return
		}
		if v.CanInt() {
			v.SetInt(x)
		} else if x < 0 || v.OverflowUint(uint64(x)) {
			wrong.allowed = boundsAt(path)
			ps.fail(path, "out of range", wrong)
		} else {
			v.SetUint(uint64(x))
		}
	default:
		panic("policy: no decoder for " + v.Type().String())
	}
}

func (ps *parser) decodeDuration(n *yaml.Node, path string, target *time.Duration) {
	d, err := parseDuration(n.Value)
	if err == nil {
		*target = d
		return
	}
	wrong := detail{value: ps.quoteUnlessSecret(n.Value), allowed: durationsAllowed}
	if hint := lengthOfBan(path); hint != "" && withoutEnd(n.Value) {
		wrong.hint = hint
		ps.fail(path, "no duration; bans always end, since addresses change hands", wrong)
		return
	}
	switch {
	case errors.Is(err, errNoUnit) && isDecimal(n.Value, false):
		wrong.hint = n.Value + "s for seconds, " + n.Value + "m for minutes"
	case errors.Is(err, errNotDuration):
		wrong.hint = durationFromWords(n.Value)
	}
	ps.fail(path, err.Error(), wrong)
}

func parseBool(text string) (value, ok bool) {
	switch strings.ToLower(text) {
	case "true", "yes", "on":
		return true, true
	case "false", "no", "off":
		return false, true
	}
	return false, false
}

// isDecimal says whether text is a number as people write it: no hexadecimal, exponent, underscore or leading zero.
func isDecimal(text string, fraction bool) bool {
	text = strings.TrimPrefix(text, "-")
	whole, part, point := strings.Cut(text, ".")
	const digits = "0123456789"
	if whole == "" || len(text) > 30 || strings.Trim(whole, digits) != "" || len(whole) > 1 && whole[0] == '0' {
		return false
	}
	return !point || fraction && part != "" && strings.Trim(part, digits) == ""
}

// nodeKind names what a value is, for somebody who does not know YAML's words.
func nodeKind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a section"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	case n.Tag == "!!int" || n.Tag == "!!float":
		return "a number"
	}
	return "text"
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a duration"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Float64:
		return "a number"
	case t.Kind() == reflect.Int, t.Kind() == reflect.Uint16, t.Kind() == reflect.Uint32, t.Kind() == reflect.Uint64:
		return "a whole number"
	}
	return "text"
}
