package ban

// Action is what a decision does: a bounded set, fit for a metric label.
type Action string

// The actions. ActionBan, ActionExtend, ActionUnban and ActionCut change the kernel; the others are reports.
const (
	ActionBan           Action = "ban"
	ActionExtend        Action = "extend"
	ActionUnban         Action = "unban"
	ActionTrust         Action = "trust"
	ActionUntrust       Action = "untrust"
	ActionMisconfigured Action = "misconfigured"
	ActionBreach        Action = "breach"
	ActionTampering     Action = "tampering"
	ActionTargeted      Action = "targeted"
	ActionGuessing      Action = "guessing" // passwords are being guessed, and nobody is banned for it
	ActionLeak          Action = "leak"     // a banned source still gets through
	ActionNewPlace      Action = "newplace" // an account logged in from where it never was
	ActionProxy         Action = "proxy"    // many customers log in through one source, which nobody named
	ActionBlind         Action = "blind"    // a sense is gone: what it would have told is not known
	ActionCut           Action = "cut"      // one flow of a known good source is closed, the others go on
	ActionObserve       Action = "observe"  // would have banned, or cut
	ActionReview        Action = "review"   // what observing has shown
)

// Actions returns all of them.
func Actions() []Action {
	return []Action{
		ActionBan, ActionExtend, ActionUnban, ActionTrust, ActionUntrust, ActionMisconfigured, ActionBreach,
		ActionTampering, ActionTargeted, ActionGuessing, ActionLeak, ActionNewPlace, ActionProxy, ActionBlind,
		ActionCut,
		ActionObserve, ActionReview,
	}
}
