package config

import (
	"reflect"
	"slices"
)

// Default returns every default value; its list of Asterisks is empty, see [DefaultAsterisk]. Why a default is what
// it is stands in the comments of [Config.Print].
func Default() Config {
	var c Config
	setDefaults(allSettings(), reflect.ValueOf(&c).Elem(), "")
	return c
}

// DefaultAsterisk returns the defaults of one entry of the list of Asterisks. Address, Username and Secret have none;
// an empty Name becomes the address.
func DefaultAsterisk() Asterisk {
	var a Asterisk
	setDefaults(allSettings(), reflect.ValueOf(&a).Elem(), "asterisk[].")
	return a
}

// DefaultNotify returns the defaults of one entry of notify. Either URL or Exec has to be given.
func DefaultNotify() Notify {
	var n Notify
	setDefaults(allSettings(), reflect.ValueOf(&n).Elem(), "notify[].")
	return n
}

// DefaultList returns the defaults of one entry of lists. Name has none.
func DefaultList() List {
	var l List
	setDefaults(allSettings(), reflect.ValueOf(&l).Elem(), "lists[].")
	return l
}

// serviceNames are the services of Asterisk that report security events, in the order in which they are shown.
func serviceNames(services map[string]Mode) []string {
	names := make([]string, 0, len(services))
	for _, name := range []string{"PJSIP", "AMI", "SIP"} {
		if _, ok := services[name]; ok {
			names = append(names, name)
		}
	}
	var others []string
	for name := range services {
		if !slices.Contains(names, name) {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	return append(names, others...)
}
