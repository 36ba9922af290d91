package ban

// Action is what a decision does: a bounded set, fit for a metric label.
type Action string

// The actions. ActionBan, ActionExtend and ActionUnban change the kernel; the others are reports.
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
	ActionObserve       Action = "observe"  // would have banned
)

// Actions returns all of them.
func Actions() []Action {
	return []Action{
		ActionBan, ActionExtend, ActionUnban, ActionTrust, ActionUntrust, ActionMisconfigured, ActionBreach,
		ActionTampering, ActionTargeted, ActionGuessing, ActionLeak, ActionNewPlace, ActionObserve,
	}
}
