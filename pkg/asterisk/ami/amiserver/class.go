package amiserver

import (
	"fmt"
	"strconv"
	"strings"
)

// A Class is a set of privilege classes, as in read=, write= and Events.
type Class uint32

// The classes of main/manager.c (perms[]), by their labels in manager.conf.
const (
	ClassSystem Class = 1 << iota
	ClassCall
	ClassLog
	ClassVerbose
	ClassCommand
	ClassAgent
	ClassUser
	ClassConfig
	ClassDTMF
	ClassReporting
	ClassCDR
	ClassDialplan
	ClassOriginate
	ClassAGI
	ClassCC
	ClassAOC
	ClassTest
	ClassSecurity
	ClassMessage

	ClassNone Class = 0
	ClassAll  Class = 1<<31 - 1
)

// classNames returns the names in the order of the constants.
func classNames() []string {
	return []string{"system", "call", "log", "verbose", "command", "agent", "user", "config", "dtmf", "reporting",
		"cdr", "dialplan", "originate", "agi", "cc", "aoc", "test", "security", "message"}
}

// ParseClass reads a comma-separated list as read= in manager.conf has it.
func ParseClass(list string) (Class, error) {
	var c Class
	for word := range strings.SplitSeq(list, ",") {
		bit, ok := classNamed(strings.TrimSpace(word))
		if !ok {
			return 0, fmt.Errorf("amiserver: class %q is not one of all, none, %s", word,
				strings.Join(classNames(), ", "))
		}
		c |= bit
	}
	return c, nil
}

func classNamed(word string) (Class, bool) {
	switch word {
	case "", "none":
		return ClassNone, true
	case "all":
		return ClassAll, true
	}
	for i, label := range classNames() {
		if word == label {
			return 1 << i, true
		}
	}
	return 0, false
}

// parseEventMask reads an Events or EventMask header (main/manager.c, strings_to_mask()). Unknown words count for
// nothing; an empty header is no mask.
func parseEventMask(s string) (Class, bool) {
	if s == "" {
		return 0, false
	}
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return Class(n), true
	}
	switch strings.ToLower(s) {
	case "no", "false", "n", "f", "0", "off":
		return ClassNone, true
	case "yes", "true", "y", "t", "1", "on":
		return ClassAll, true
	}
	var c Class
	for word := range strings.SplitSeq(s, ",") {
		bit, _ := classNamed(word)
		c |= bit
	}
	return c, true
}
