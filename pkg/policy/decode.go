package policy

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
)

const (
	maxNodes  = 1 << 20 // values looked at, those behind aliases counted each time
	maxList   = 10_000  // entries of one list
	maxErrors = 50      // mistakes reported at once
)

// file is one configuration while it is read: where each value stands, and what is wrong with it.
type file struct {
	name    string
	env     Environment
	nodes   map[string]*yaml.Node // by path: the values that the file gives
	bad     map[string]bool       // by path: a mistake has been reported
	leaves  []string              // the names of all keys
	secrets []string              // texts that must not be shown
	errs    Errors
	warns   []Warning
	visits  int
}

// detail is the optional part of an [Error].
type detail struct {
	value, allowed, hint string
	cause                error
	outside              bool // see Error
}

// fail reports a mistake at the value of path, or at what holds it when the file does not give it.
func (f *file) fail(path, what string, d detail) {
	f.failAt(f.position(path), path, what, d)
}

func (f *file) failAt(n *yaml.Node, path, what string, d detail) {
	f.bad[path] = true
	if len(f.errs) > maxErrors {
		return
	}
	e := &Error{File: f.name, Key: path, What: what, Value: d.value, Allowed: d.allowed, Try: d.hint, cause: d.cause, outside: d.outside}
	if n != nil {
		e.Line, e.Column = n.Line, n.Column
	}
	if len(f.errs) == maxErrors {
		e.Key, e.What, e.Value, e.Allowed, e.Try = "", "more mistakes follow", "", "", "correct the ones above first"
	}
	f.errs = append(f.errs, e)
}

func (f *file) warn(path, what string, d detail) {
	w := Warning{File: f.name, Key: path, What: what, Value: d.value, Try: d.hint}
	if n := f.position(path); n != nil {
		w.Line, w.Column = n.Line, n.Column
	}
	if len(f.warns) < maxErrors {
		f.warns = append(f.warns, w)
	}
}

// position returns the value at path, or the nearest one around it that the file gives.
func (f *file) position(path string) *yaml.Node {
	for {
		if n := f.nodes[path]; n != nil {
			return n
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return f.nodes[""]
		}
		path = path[:i]
	}
}

// given says whether the file gives the key, and rightly so far.
func (f *file) given(path string) bool { return f.nodes[path] != nil && !f.bad[path] }

// shown is the value at path as the file writes it, quoted; empty if it is no text or could be a secret.
func (f *file) shown(path string) string {
	n := f.nodes[path]
	if n == nil || n.Kind != yaml.ScalarNode || strings.HasSuffix(path, ".secret") || strings.HasSuffix(path, ".url") ||
		strings.HasSuffix(path, ".token") || strings.Contains(path, ".headers") {
		return ""
	}
	return f.quote(n.Value)
}

// quote hides what may hold a secret: "username: ringwall" with "secret:1234" below it, indented too far, is one value.
func (f *file) quote(text string) string {
	for _, s := range f.secrets {
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
func (f *file) collectSecrets(n *yaml.Node) {
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && c.Kind == yaml.ScalarNode && i+1 < len(n.Content) && f.secretKey(c.Value) {
			f.collectTexts(n.Content[i+1], c.Value)
		}
		f.collectSecrets(c)
	}
}

func (f *file) collectTexts(n *yaml.Node, of string) {
	if n.Kind == yaml.MappingNode && of == "headers" {
		for i := 1; i < len(n.Content); i += 2 { // their names are no secret
			f.collectTexts(n.Content[i], "")
		}
		return
	}
	if n.Kind == yaml.ScalarNode && len(n.Value) >= 3 && len(f.secrets) < 1000 {
		f.secrets = append(f.secrets, n.Value)
	}
	for _, c := range n.Content {
		f.collectTexts(c, "")
	}
}

// secretKey says whether a key is, or was meant to be, one that holds a secret.
func (f *file) secretKey(key string) bool {
	near := nearest(key, []string{"secret", "url", "token", "headers"})
	if near != "" {
		near = nearest(key, f.leaves) // "socket" is near, and a key of its own
	}
	key = strings.ToLower(key)
	return slices.Contains([]string{"secret", "url", "token", "headers"}, near) ||
		near != "secret_file" && strings.Contains(key, "secret") || strings.Contains(key, "pass")
}

// resolve follows an alias. ok is false when the file has been looked at for too long: aliases can multiply it.
func (f *file) resolve(n *yaml.Node) (target *yaml.Node, ok bool) {
	if f.visits++; f.visits > maxNodes {
		return nil, false
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n, n != nil
}

// decode puts the value n, which stands at path, into v, which holds the default.
func (f *file) decode(n *yaml.Node, path string, v reflect.Value) {
	if len(f.errs) > maxErrors {
		return
	}
	n, ok := f.resolve(n)
	if !ok {
		if !f.bad[""] {
			f.fail("", "too many values", detail{hint: "fewer aliases (*name)"})
		}
		return
	}
	f.nodes[path] = n
	if n.Style&yaml.TaggedStyle != 0 && !strings.HasPrefix(n.Tag, "!!") {
		f.fail(path, "a value begins with !", detail{hint: "put it in double quotes"})
		return
	}
	isNull := n.Kind == yaml.ScalarNode && n.Tag == "!!null"
	t := v.Type()
	switch {
	case t == reflect.TypeFor[Ports]() && !isNull:
		f.portsOrAuto(n, path, v)
		return
	case isSection(t):
		if !isNull {
			f.section(n, path, v)
		}
		return
	case t == reflect.TypeFor[map[string]Secret]():
		if !isNull {
			f.headers(n, path, v)
		}
		return
	case multiplier(t):
		if !isNull {
			f.multipliers(n, path, v)
		}
		return
	case t.Kind() == reflect.Map:
		if !isNull {
			f.services(n, path, v)
		}
		return
	case t.Kind() == reflect.Slice:
		if !isNull {
			f.list(n, path, v)
		}
		return
	}
	if n.Kind != yaml.ScalarNode {
		f.fail(path, fmt.Sprintf("%s where %s belongs", kind(n), wanted(t)), detail{})
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
		f.fail(path, "no value", detail{allowed: wanted(t), hint: hint})
		return
	}
	f.scalar(n, path, v)
}

// section decodes a mapping whose keys are the fields of a struct.
func (f *file) section(n *yaml.Node, path string, v reflect.Value) {
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
		what := kind(n) + " where a section belongs"
		if path == "" {
			what = "the file holds " + kind(n) + " where sections belong"
		}
		f.fail(path, what, detail{allowed: "the keys " + strings.Join(names, ", "), hint: "key: value, with a space after the colon"})
		return
	}
	f.mapping(n, path, func(key *yaml.Node, at string, value *yaml.Node) {
		i, ok := fields[key.Value]
		if !ok {
			f.unknown(key, value, at, names)
			return
		}
		f.decode(value, at, v.Field(i))
	})
}

// portsOrAuto decodes firewall.ports: the word auto, or the lists. Who writes one of them has decided for himself.
func (f *file) portsOrAuto(n *yaml.Node, path string, v reflect.Value) {
	p := v.Addr().Interface().(*Ports)
	if p.Auto = n.Kind == yaml.ScalarNode && n.Value == "auto"; p.Auto {
		return
	}
	if n.Kind != yaml.MappingNode {
		f.fail(path, kind(n)+" that is neither auto nor lists of ports", detail{value: f.shown(path),
			allowed: "auto, or the keys udp, tcp", hint: "{udp: [5060], tcp: [5060, 5061]}"})
		return
	}
	f.section(n, path, v)
}

func (f *file) unknown(key, value *yaml.Node, at string, names []string) {
	what, hint := "unknown key", ""
	if resolved, ok := f.resolve(value); ok && slices.Contains(names, "half_life") {
		about, instead := f.fromFail2ban(key.Value, resolved)
		if instead != "" {
			what = "a key of fail2ban's"
			if about != "" {
				what += "; " + about
			}
			f.bad[strings.TrimSuffix(at, f.pathOf("", key.Value))+strings.SplitN(instead, ":", 2)[0]] = true
			f.failAt(key, at, what, detail{allowed: strings.Join(names, ", "), hint: instead})
			return
		}
	}
	near, other := nearest(key.Value, names), elsewhere(key.Value)
	if leaf := other[strings.LastIndexByte(other, '.')+1:]; near == "" && slices.Contains(names, leaf) {
		near = leaf
	}
	switch {
	case near != "":
		what += ", did you mean " + near + "?"
		f.bad[strings.TrimSuffix(at, f.pathOf("", key.Value))+near] = true // it is not missing as well
	case other != "":
		what, hint = "unknown key here", other
	case strings.Contains(key.Value, ":"):
		hint = "a space after the colon"
	}
	f.failAt(key, at, what, detail{allowed: strings.Join(names, ", "), hint: hint})
}

// services decodes services, whose keys are Asterisk's; the ones that are not given keep their default.
func (f *file) services(n *yaml.Node, path string, v reflect.Value) {
	names := serviceNames(v.Interface().(map[string]Mode))
	if n.Kind != yaml.MappingNode {
		f.fail(path, kind(n)+" where a section belongs", detail{allowed: "the keys " + strings.Join(names, ", "), hint: "{SIP: observe}"})
		return
	}
	f.mapping(n, path, func(key *yaml.Node, at string, value *yaml.Node) {
		if old := v.MapIndex(reflect.ValueOf(key.Value)); !old.IsValid() {
			what, hint := "unknown service", ""
			if near := cmp.Or(driver(key.Value), nearest(key.Value, names)); near != "" {
				what += ", did you mean " + near + "?"
			} else if strings.EqualFold(key.Value, "IAX2") || strings.EqualFold(key.Value, "IAX") {
				hint = "remove it: Asterisk reports no security events of IAX2"
			}
			f.failAt(key, at, what, detail{allowed: strings.Join(names, ", "), hint: hint})
			return
		}
		mode := reflect.New(v.Type().Elem()).Elem()
		f.decode(value, at, mode)
		if !f.bad[at] {
			v.SetMapIndex(reflect.ValueOf(key.Value), mode)
		}
	})
}

// driver is the service of a channel driver, by which people know it.
func driver(name string) string {
	switch strings.TrimSuffix(strings.ToLower(name), ".so") {
	case "chan_pjsip", "res_pjsip":
		return "PJSIP"
	case "chan_sip":
		return "SIP"
	case "manager":
		return "AMI"
	}
	return ""
}

// headers decodes headers, whose keys are the file's own and whose values may be secrets.
func (f *file) headers(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		f.fail(path, kind(n)+" where a section belongs", detail{hint: `{X-Name: "value"}`})
		return
	}
	v.Set(reflect.ValueOf(make(map[string]Secret)))
	f.mapping(n, path, func(key *yaml.Node, at string, value *yaml.Node) {
		secret := reflect.New(v.Type().Elem()).Elem()
		f.decode(value, at, secret)
		if !f.bad[at] && v.Len() < 100 {
			v.SetMapIndex(reflect.ValueOf(key.Value), secret)
		}
	})
}

// mapping calls each with the keys of n, and reports the ones that no mapping of ours may have.
func (f *file) mapping(n *yaml.Node, path string, each func(key *yaml.Node, at string, value *yaml.Node)) {
	lines := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, ok := f.resolve(n.Content[i])
		if !ok || len(f.errs) > maxErrors {
			return
		}
		if key.Kind != yaml.ScalarNode {
			f.failAt(key, path, "a key that is "+kind(key), detail{allowed: "a word", hint: "key: value"})
			continue
		}
		if key.Tag == "!!merge" {
			f.failAt(key, path, "merge keys (<<) are not read", detail{hint: "write the keys out"})
			continue
		}
		at := f.pathOf(path, key.Value)
		if line, twice := lines[key.Value]; twice {
			f.failAt(key, at, fmt.Sprintf("given twice, first in line %d", line), detail{hint: "remove one of them"})
			continue
		}
		lines[key.Value] = key.Line
		each(key, at, n.Content[i+1])
	}
}

// pathOf appends a key that the file may have invented.
func (f *file) pathOf(path, key string) string {
	if len(key) > 40 || strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" || key == "" {
		key = f.quote(key)
	} else if f.quote(key) == hidden {
		key = hidden
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func (f *file) list(n *yaml.Node, path string, v reflect.Value) {
	element := v.Type().Elem()
	if n.Kind != yaml.SequenceNode {
		hint := "[ and ] around it"
		switch {
		case isSection(element):
			hint = "- before the first key, and the other keys below it"
		case n.Kind == yaml.ScalarNode:
			hint = f.asList(path, n.Value)
		}
		f.fail(path, kind(n)+" where a list belongs", detail{hint: hint})
		return
	}
	if len(n.Content) > maxList {
		f.fail(path, fmt.Sprintf("a list of %d entries", len(n.Content)), detail{allowed: fmt.Sprintf("at most %d", maxList)})
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, c := range n.Content {
		switch element {
		case reflect.TypeFor[Asterisk]():
			v.Index(i).Set(reflect.ValueOf(DefaultAsterisk()))
		case reflect.TypeFor[Notify]():
			v.Index(i).Set(reflect.ValueOf(DefaultNotify()))
		}
		f.decode(c, path+"["+strconv.Itoa(i)+"]", v.Index(i))
	}
}

// scalar decodes one value. Its texts are read here and not by yaml.v3, for which 010 is eight.
func (f *file) scalar(n *yaml.Node, path string, v reflect.Value) {
	switch target := v.Addr().Interface().(type) {
	case *Secret:
		*target = Secret{n.Value}
		return
	case *time.Duration:
		f.duration(n, path, target)
		return
	case *AllowEntry:
		f.allowEntry(n.Value, path, target)
		return
	case **regexp.Regexp:
		f.regexp(n.Value, path, target)
		return
	}
	quoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	wrong := detail{value: f.quote(n.Value)}
	switch v.Kind() {
	case reflect.String:
		v.SetString(n.Value)
	case reflect.Bool:
		b, ok := boolean(n.Value)
		if !ok || quoted {
			wrong.allowed = "true or false, without quotes"
			f.fail(path, "not a yes or no", wrong)
			return
		}
		v.SetBool(b)
	case reflect.Float64:
		x, err := strconv.ParseFloat(n.Value, 64)
		if !decimal(n.Value, true) || err != nil || quoted {
			wrong.allowed, wrong.hint = "a number such as 10 or 2.5, without quotes", correctNumber(n.Value, true)
			f.fail(path, "not a number", wrong)
			return
		}
		v.SetFloat(x + 0) // -0 becomes 0
	case reflect.Int, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		x, err := strconv.ParseInt(n.Value, 10, 64)
		if errors.Is(err, strconv.ErrRange) {
			err, x = nil, math.MaxInt64
		}
		if !decimal(n.Value, false) || err != nil || quoted {
			wrong.allowed, wrong.hint = "a whole number such as 10, without quotes", correctNumber(n.Value, false)
			if strings.HasPrefix(path, "firewall.ports.") {
				if wrong.hint = f.entries(path, correctPorts(n.Value)); wrong.hint == "" && strings.ContainsAny(n.Value, ":-") {
					wrong.hint = "each port by itself; firewall.scope: all closes every port"
				}
			}
			f.fail(path, "not a whole number", wrong)
			return
		}
		if v.CanInt() {
			v.SetInt(x)
		} else if x < 0 || v.OverflowUint(uint64(x)) {
			wrong.allowed = numbersAllowed(path)
			f.fail(path, "out of range", wrong)
		} else {
			v.SetUint(uint64(x))
		}
	default:
		panic("policy: no decoder for " + v.Type().String())
	}
}

func (f *file) duration(n *yaml.Node, path string, target *time.Duration) {
	d, err := parseDuration(n.Value)
	if err == nil {
		*target = d
		return
	}
	wrong := detail{value: f.quote(n.Value), allowed: durationsAllowed}
	if hint := lengthOfBan(path); hint != "" && withoutEnd(n.Value) {
		wrong.hint = hint
		f.fail(path, "no duration; bans always end, since addresses change hands", wrong)
		return
	}
	switch {
	case errors.Is(err, errNoUnit) && decimal(n.Value, false):
		wrong.hint = n.Value + "s for seconds, " + n.Value + "m for minutes"
	case errors.Is(err, errNotDuration):
		wrong.hint = spelledOut(n.Value)
	}
	f.fail(path, err.Error(), wrong)
}

func boolean(text string) (value, ok bool) {
	switch strings.ToLower(text) {
	case "true", "yes", "on":
		return true, true
	case "false", "no", "off":
		return false, true
	}
	return false, false
}

// decimal says whether text is a number as people write it: no hexadecimal, exponent, underscore or leading zero.
func decimal(text string, fraction bool) bool {
	text = strings.TrimPrefix(text, "-")
	whole, part, point := strings.Cut(text, ".")
	const digits = "0123456789"
	if whole == "" || len(text) > 30 || strings.Trim(whole, digits) != "" || len(whole) > 1 && whole[0] == '0' {
		return false
	}
	return !point || fraction && part != "" && strings.Trim(part, digits) == ""
}

// kind names what a value is, for somebody who does not know YAML's words.
func kind(n *yaml.Node) string {
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

func wanted(t reflect.Type) string {
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
