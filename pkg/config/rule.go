package config

import (
	"fmt"
	"reflect"
	"time"
)

// rule is what may stand at a key, besides what its type does not take. The zero rule allows everything.
type rule struct {
	least, most string // as the file writes them, where there are such bounds
	try         string // for whoever is beyond them
	check       func(f *parser, path string, v reflect.Value, r rule)
}

// withHint is the rule with what to try where it is broken.
func (r rule) withHint(try string) rule {
	r.try = try
	return r
}

// boundsText are the bounds as an error names them.
func (r rule) boundsText() string { return r.least + " to " + r.most }

// inBounds allows values from least to most.
func inBounds[T int | float64 | time.Duration](least, most T) rule {
	return rule{least: boundOf(least), most: boundOf(most),
		check: func(ps *parser, path string, v reflect.Value, r rule) {
			if value := v.Convert(reflect.TypeFor[T]()).Interface().(T); value < least || value > most {
				ps.fail(path, "out of range", detail{value: ps.shownValue(path), allowed: r.boundsText(), hint: r.try})
			}
		}}
}

func boundOf(value any) string {
	switch value := value.(type) {
	case time.Duration:
		return formatBound(value)
	case float64:
		return formatFloat(value)
	case int:
		return formatInt(value)
	}
	panic(fmt.Sprintf("policy: no bound is a %T", value))
}

// severalOrNone allows a number of sources up to most, of which one is too few and 0 turns the rule off.
func severalOrNone(most int, whyNotOne string) rule {
	r := inBounds(0, most)
	r.least, r.check = boundOf(2), func(ps *parser, path string, v reflect.Value, r rule) {
		switch n := v.Int(); {
		case n == 1:
			ps.fail(path, "with 1, "+whyNotOne,
				detail{value: ps.shownValue(path), allowed: "0 for off, or " + r.boundsText(), hint: r.try})
		case n < 0 || n > int64(most):
			ps.fail(path, "out of range", detail{value: ps.shownValue(path), allowed: "0 to " + r.most})
		}
	}
	return r
}

// oneOf allows some words.
func oneOf[T ~string](words ...T) rule {
	allowed := toStrings(words)
	return rule{check: func(ps *parser, path string, v reflect.Value,
		_ rule) {
		ps.checkOneOf(path, v.String(), allowed)
	}}
}

// checkedBy allows the values in which a function finds nothing wrong.
func checkedBy[T any](check func(ps *parser, path string, value T)) rule {
	return rule{check: func(ps *parser, path string, v reflect.Value, _ rule) { check(ps, path, v.Interface().(T)) }}
}

// withoutRepeats warns of entries that a list holds twice.
func withoutRepeats[T comparable]() rule {
	return checkedBy(func(ps *parser, path string, list []T) { failDuplicates(ps, path, list, ps.warn) })
}

// checkSettings checks each key by itself.
func (ps *parser) checkSettings(c *Config) {
	for _, s := range ps.settings {
		if s.allowed.check == nil {
			continue
		}
		eachValue(reflect.ValueOf(c).Elem(), s.path, "", func(at string, v reflect.Value) {
			if !ps.failed[at] {
				s.allowed.check(ps, at, v, s.allowed)
			}
		})
	}
}
