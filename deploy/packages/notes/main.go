// Command notes prints what a release changes for its users: the newest entry of the changelog, which must be the
// version's.
//
//	go -C deploy run ./packages/notes VERSION
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.yaml.in/yaml/v3"
)

const changelog = "packages/changelog.yaml"

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "notes:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: go -C deploy run ./packages/notes VERSION")
	}
	version := args[0]
	text, err := os.ReadFile(changelog)
	if err != nil {
		return err
	}
	var entries []struct {
		Semver  string
		Date    time.Time
		Changes []struct{ Note string }
	}
	if err := yaml.Unmarshal(text, &entries); err != nil {
		return fmt.Errorf("deploy/%s: %w", changelog, err)
	}
	if len(entries) == 0 || entries[0].Semver != version {
		return fmt.Errorf("deploy/%s does not begin with an entry of %s: write there what a user notices, and "+
			"commit it",
			changelog, version)
	}
	entry := entries[0]
	if entry.Date.IsZero() || len(entry.Changes) == 0 {
		return fmt.Errorf("deploy/%s: the entry of %s has no date, or no changes", changelog, version)
	}
	if _, err := fmt.Fprintf(out, "# Ringwall %s, %s\n\n", version, entry.Date.Format(time.DateOnly)); err != nil {
		return err
	}
	for _, change := range entry.Changes {
		if change.Note == "" {
			return fmt.Errorf("deploy/%s: a change of %s has no note", changelog, version)
		}
		if _, err := fmt.Fprintf(out, "- %s\n", change.Note); err != nil {
			return err
		}
	}
	return nil
}
