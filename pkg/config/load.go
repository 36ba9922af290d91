package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"syscall"

	"go.yaml.in/yaml/v3"

	"github.com/ringwall/ringwall/pkg/hint"
)

// Environment is what a configuration asks of the machine. With the zero value no variable is set and no file exists.
type Environment struct {
	// Lookup returns an environment variable, like [os.LookupEnv].
	Lookup func(name string) (string, bool)
	// Open opens a secret_file, a ca_file or a systemd credential for reading.
	Open func(name string) (fs.File, error)
	// WithoutSecrets is for commands that never log in, and may not be allowed to read the secrets: their sources are
	// neither read nor demanded, and Secret stays empty unless the file itself holds it.
	WithoutSecrets bool
	// OpenConfig opens the file of Load itself; nil: like os.Open.
	OpenConfig func(name string) (fs.File, error)
	// Lenient is for a start that must not fail: a secret or a certificate that cannot be had from elsewhere is a
	// warning. An Asterisk is without its secret then (see [Asterisk.Reload]), and a target of notify is left out.
	Lenient bool
}

// As returns the environment of somebody else, who opens all files: the service's user, in place of root.
func (e Environment) As(open func(name string) (fs.File, error)) Environment {
	e.Open, e.OpenConfig = open, open
	return e
}

// OS returns the environment of this process.
func OS() Environment {
	return Environment{Lookup: os.LookupEnv, Open: func(name string) (fs.File, error) {
		// Without O_NONBLOCK a named pipe in place of a file would stop the daemon's start for ever.
		return os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	}}
}

func (e Environment) lookupVariable(name string) (string, bool) {
	if e.Lookup == nil {
		return "", false
	}
	return e.Lookup(name)
}

func (e Environment) openFile(name string) (fs.File, error) {
	if e.Open == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return e.Open(name)
}

// Load reads and checks the file at path, which may be up to 1 MiB long. The error is an [Errors] with every mistake
// that was found. The warnings are in the order of their lines, and are returned with an error too.
func Load(path string, env Environment) (*Config, []Warning, error) {
	cfg, _, warnings, err := LoadText(path, env)
	return cfg, warnings, err
}

// LoadText is [Load] that also returns the file's text.
func LoadText(path string, env Environment) (cfg *Config, text []byte, warnings []Warning, err error) {
	open := env.OpenConfig
	if open == nil {
		open = func(name string) (fs.File, error) { return os.Open(name) }
	}
	r, err := open(path)
	if err != nil {
		return nil, nil, nil, unreadableError(path, err)
	}
	defer func() { _ = r.Close() }()
	info, err := r.Stat()
	if err != nil {
		return nil, nil, nil, unreadableError(path, err)
	}
	var b bytes.Buffer
	cfg, warnings, err = parseFile(io.TeeReader(r, &b), path, info.Mode(), env)
	return cfg, b.Bytes(), warnings, err
}

// Parse is [Load] from a reader; name stands for the file in errors and warnings.
func Parse(r io.Reader, name string, env Environment) (*Config, []Warning, error) {
	return parseFile(r, name, 0, env)
}

func unreadableError(path string, err error) error {
	e := &Error{File: path, What: "cannot be read", cause: err}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		e.What += ": " + pe.Err.Error()
	}
	switch try := hint.Of(err); {
	case try != "":
		e.Try = try
	case errors.Is(err, fs.ErrNotExist):
		e.Try = "--config FILE, or begin with examples/minimal.yaml"
	case errors.Is(err, fs.ErrPermission):
		e.Try = "sudo; the daemon's own user needs: chgrp ringwall " + plainText(path) + " && chmod 0640 " +
			plainText(path)
	case errors.Is(err, syscall.EISDIR):
		e.Try = "a file in it"
	}
	return Errors{e}
}

func parseFile(r io.Reader, name string, mode fs.FileMode, env Environment) (*Config, []Warning, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, nil, unreadableError(name, err)
	}
	if len(data) > maxFile {
		return nil, nil, Errors{{File: name, What: "the file is too large",
			Allowed: fmt.Sprintf("up to %d bytes", maxFile)}}
	}
	root, e := parseYAML(name, data)
	if e != nil {
		return nil, nil, Errors{e}
	}
	if root == nil || root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil, Errors{{File: name, What: "the file is empty", Try: "begin with examples/minimal.yaml"}}
	}
	ps := &parser{name: name, env: env, settings: allSettings(), valueNodes: map[string]*yaml.Node{},
		failed: map[string]bool{}}
	for _, s := range ps.settings {
		ps.lastWords = append(ps.lastWords, lastKey(s.path))
	}
	ps.collectSecrets(root)
	c := Default()
	ps.decodeValue(root, "", reflect.ValueOf(&c).Elem())
	if !ps.failed[""] {
		ps.checkConfig(&c, mode)
	}
	sortWarnings(ps.warnings)
	if env.Lenient {
		ps.forgiveElsewhere(&c)
	}
	if len(ps.mistakes) > 0 {
		sortErrors(ps.mistakes)
		return nil, ps.warnings, ps.mistakes
	}
	return &c, ps.warnings, nil
}
