package notify

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/notify/message"
)

const maxPrefixes = 10 // that a summary names

// summary counts decisions that are not told one by one.
type summary struct {
	since    time.Time       // of the first of them
	count    int             // decisions
	actions  []message.Tally // in the order in which they first came
	prefixes []string        // the first of them, at most maxPrefixes
}

func (s *summary) addDecision(d ban.Decision, now time.Time) {
	if s.count == 0 {
		s.since = now
	}
	s.countAction(string(d.Action), 1)
	if d.Prefix.IsValid() {
		s.addPrefix(d.Prefix.String())
	}
}

func (s *summary) addPrefix(p string) {
	if p != "" && len(s.prefixes) < maxPrefixes && !slices.Contains(s.prefixes, p) {
		s.prefixes = append(s.prefixes, p)
	}
}

func (s *summary) countAction(action string, n int) {
	s.count += n
	for i := range s.actions {
		if s.actions[i].Action == action {
			s.actions[i].Count += n
			return
		}
	}
	s.actions = append(s.actions, message.Tally{Action: action, Count: n})
}

// addMessage counts what a message was about that could not be delivered: a decision, or those of a summary.
func (s *summary) addMessage(m message.Message, since time.Time) {
	if s.count == 0 || since.Before(s.since) {
		s.since = since
	}
	for _, t := range m.Actions {
		s.countAction(t.Action, t.Count)
	}
	prefixes := m.Prefixes
	if m.Action != message.Summary {
		s.countAction(m.Action, 1)
		prefixes = []string{m.Prefix}
	}
	for _, p := range prefixes {
		s.addPrefix(p)
	}
}

// addSummary adds what another summary counted.
func (s *summary) addSummary(o summary) {
	if o.count > 0 {
		s.addMessage(message.Message{Action: message.Summary, Actions: o.actions, Prefixes: o.prefixes}, o.since)
	}
}

func (s *summary) toMessage(host string, now time.Time) message.Message {
	m := message.Message{
		Time: now.UTC().Format(time.RFC3339), Host: host, Action: message.Summary,
		Count: s.count, Actions: s.actions, Prefixes: s.prefixes,
	}
	m.Title = fmt.Sprintf("Ringwall on %s: %d more decisions", host, s.count)
	if s.count == 1 {
		m.Title = fmt.Sprintf("Ringwall on %s: one more decision", host)
	}
	var parts []string
	for _, t := range s.actions {
		parts = append(parts, fmt.Sprintf("%d %s", t.Count, t.Action))
	}
	m.Text = fmt.Sprintf("Not told one by one since %s: %s.", s.since.UTC().Format("2006-01-02 15:04:05 MST"),
		strings.Join(parts, ", "))
	if len(s.prefixes) > 0 {
		m.Text += " Among them " + strings.Join(s.prefixes, ", ") + "."
	}
	m.Text += " ringwall history has them all."
	return m
}
