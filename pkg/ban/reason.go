package ban

// Reason is the rule behind a decision or a piece of evidence: a bounded set, fit for a metric label.
type Reason string

// The reasons. Those up to ReasonDialplan are the keys of policy.points.
const (
	ReasonUnknownAccount      Reason = "unknown_account"
	ReasonWrongPassword       Reason = "wrong_password"
	ReasonACL                 Reason = "acl"
	ReasonUnansweredChallenge Reason = "unanswered_challenge"
	ReasonManager             Reason = "manager"
	ReasonHoneypot            Reason = "honeypot"
	// What a sensor saw and no event told.
	ReasonSilentGuess  Reason = "silent_guess"
	ReasonProbing      Reason = "probing"
	ReasonScanner      Reason = "scanner"
	ReasonMalformedSIP Reason = "malformed_sip"
	ReasonIAX          Reason = "iax"
	ReasonHTTP         Reason = "http"
	ReasonDialplan     Reason = "dialplan"

	ReasonSilentLogin   Reason = "silent_login"  // a password was right, and no event told
	ReasonLogin         Reason = "login"         // a password was right
	ReasonRegistered    Reason = "registered"    // Asterisk knows a contact there
	ReasonExpired       Reason = "expired"       // the time of a ban or of trust is over
	ReasonManual        Reason = "manual"        // a person said so
	ReasonAllowed       Reason = "allowed"       // the allow list covers it now
	ReasonProtected     Reason = "protected"     // Asterisk knows it as a trunk
	ReasonTolerance     Reason = "tolerance"     // a trusted source failed too often
	ReasonAccounts      Reason = "accounts"      // a trusted source failed on too many accounts
	ReasonPace          Reason = "pace"          // one account fails as slowly as a phone retries
	ReasonGuessed       Reason = "guessed"       // a login after guessing
	ReasonDistributed   Reason = "distributed"   // many sources guess one account
	ReasonStorm         Reason = "storm"         // many known good sources fail at once
	ReasonNetwork       Reason = "network"       // many banned sources in one network
	ReasonProxy         Reason = "proxy"         // many accounts log in through it
	ReasonList          Reason = "list"          // a list of attackers names the address
	ReasonConfiguration Reason = "configuration" // Asterisk reports an error of set-up, not of a password
	ReasonAdopted       Reason = "adopted"       // found in the kernel at start
	ReasonLimit         Reason = "limit"         // a bound on bans was hit
	ReasonAsterisk      Reason = "asterisk"      // there is no connection to it
	ReasonKernel        Reason = "kernel"        // its table is not as it should be
	ReasonSensor        Reason = "sensor"        // it is silent while another speaks
	ReasonObserved      Reason = "observed"      // nobody was banned meanwhile
	ReasonMalformed     Reason = "malformed"     // a frame as Asterisk writes none, or bytes that no phone sends
)

// ReasonTest is that of a ban of an address that nobody has, by which ringwall doctor tries whether bans work. It is
// not among those that can be counted or told of: nobody is banned.
const ReasonTest Reason = "test"

// Reasons returns all that a decision can have which is counted and told of.
func Reasons() []Reason {
	return []Reason{
		ReasonUnknownAccount, ReasonWrongPassword, ReasonACL, ReasonUnansweredChallenge, ReasonManager, ReasonHoneypot,
		ReasonSilentGuess, ReasonProbing, ReasonScanner, ReasonMalformedSIP, ReasonIAX, ReasonHTTP, ReasonDialplan,
		ReasonSilentLogin, ReasonLogin, ReasonRegistered, ReasonExpired, ReasonManual, ReasonAllowed, ReasonProtected,
		ReasonTolerance,
		ReasonAccounts, ReasonPace, ReasonGuessed, ReasonDistributed, ReasonStorm, ReasonNetwork, ReasonProxy,
		ReasonList, ReasonConfiguration,
		ReasonAdopted, ReasonLimit, ReasonAsterisk, ReasonKernel, ReasonSensor, ReasonObserved,
		ReasonMalformed,
	}
}
