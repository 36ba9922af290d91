package config

import (
	"fmt"
	"io"
	"log/slog"
)

// hidden is what is shown in place of a secret.
const hidden = "(hidden)"

// Secret is a password. It prints as "(hidden)" through fmt, slog, json and yaml; Reveal returns it.
type Secret struct{ value string }

// NewSecret wraps a password.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal returns the password, for the one place that logs in with it.
func (s Secret) Reveal() string { return s.value }

// IsZero says whether there is no password.
func (s Secret) IsZero() bool { return s.value == "" }

// String returns "(hidden)".
func (s Secret) String() string { return hidden }

// GoString returns "(hidden)".
func (s Secret) GoString() string { return hidden }

// Format writes "(hidden)" whatever the verb and its flags.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue returns "(hidden)".
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON returns "(hidden)".
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// MarshalText returns "(hidden)".
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// MarshalYAML returns "(hidden)".
func (s Secret) MarshalYAML() (any, error) { return hidden, nil }
