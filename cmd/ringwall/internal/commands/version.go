package commands

import (
	"fmt"

	"github.com/spf13/cobra"
)

// Build says which program this is.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of git
	Time     string `json:"time,omitempty"`     // of the revision, RFC 3339
	Modified bool   `json:"modified"`           // built from a changed tree
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// String is one line for people.
func (b Build) String() string {
	s := "ringwall " + b.Version
	if b.Revision != "" {
		s += fmt.Sprintf(" (%.12s", b.Revision)
		if b.Modified {
			s += ", changed"
		}
		if b.Time != "" {
			s += ", " + b.Time
		}
		s += ")"
	}
	return s + " " + b.Go + " " + b.Platform
}

func (c *commands) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  takesArgs(0, 0, ""),
		RunE:  func(*cobra.Command, []string) error { return c.sayVersion() },
	}
}

func (c *commands) sayVersion() error {
	if c.json {
		return c.writeJSON(c.Build)
	}
	c.sayf("%s", c.Build)
	return nil
}
