package wording

import "github.com/ringwall/ringwall/pkg/ban"

// ClosesOnly says which ports a ban closes, where that is not all of telephony.
func ClosesOnly(c ban.Closes) string {
	switch c {
	case ban.ClosesUDP:
		return "UDP only"
	case ban.ClosesManager:
		return "AMI only"
	case ban.ClosesSIP:
		return "all but AMI"
	}
	return ""
}

// DecisionDetail is what a decision says of itself, and which ports it closes where that is not all.
func DecisionDetail(d ban.Decision) string {
	only := ""
	switch d.Action {
	case ban.ActionBan, ban.ActionExtend, ban.ActionObserve:
		only = ClosesOnly(d.Closes)
	}
	if only != "" && d.Detail != "" {
		return d.Detail + "; " + only
	}
	return d.Detail + only
}
