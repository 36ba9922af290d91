package policy

import (
	"slices"
	"time"
)

// Default returns every default value; its list of Asterisks is empty, see [DefaultAsterisk]. Why a default is what
// it is stands in the comments of [Config.Print].
func Default() Config {
	return Config{
		Policy: Policy{
			Mode:      Enforce,
			Threshold: 10,
			HalfLife:  10 * time.Minute,
			Points: Points{
				UnknownAccount:      4,
				WrongPassword:       2,
				ACL:                 4,
				UnansweredChallenge: 2,
				Manager:             4,
				Honeypot:            100,
			},
			Ban: Ban{
				First:        time.Hour,
				Factor:       4,
				Max:          168 * time.Hour,
				ForgeableMax: 24 * time.Hour,
				Memory:       720 * time.Hour,
			},
			Trust:      Trust{TTL: 24 * time.Hour, Tolerance: 10, Accounts: 5},
			IPv6Prefix: 64,
			Networks:   Networks{IPv4Prefix: 24, IPv6Sources: 8},
			Services:   map[string]Mode{"PJSIP": Enforce, "AMI": Enforce, "SIP": Observe},
			MaxSources: 1_000_000,

			Misconfigured: MisconfiguredRule{PerMinute: 6, Burst: 4, Accounts: 2},
			Challenges:    ChallengesRule{AnswerWithin: 10 * time.Second, Accounts: 20, Warmup: time.Hour},
			Breach:        BreachRule{Failures: 5},
			Targeted:      TargetedRule{Sources: 10, Within: time.Hour},
			Roaming:       RoamingRule{Within: 24 * time.Hour, Guesses: 2},
			Storm:         StormRule{Sources: 5, Within: time.Minute, Memory: 168 * time.Hour},
			Limits:        Limits{Bans: 1_000_000, ForgeableBans: 500_000, ForgeableRate: 10_000, ForgeableBurst: 200_000},
		},
		Firewall: Firewall{
			Table:    "ringwall",
			Scope:    ScopeVoIP,
			Ports:    Ports{Auto: true, UDP: []uint16{5060, 5061, 4569}, TCP: []uint16{5060, 5061, 5038, 8088, 8089}},
			Priority: -300,
			Owner:    OwnerAuto,
			Meter:    Meter{Rate: 100, Burst: 500},
		},
		Metrics: Metrics{Listen: "127.0.0.1:9646", Page: true},
		Control: Control{Socket: "/run/ringwall/ringwall.sock"},
		State:   State{Path: "/var/lib/ringwall/state.db"},
		Log:     Log{Level: "info", Format: "auto"},
	}
}

// DefaultAsterisk returns the defaults of one entry of the list of Asterisks. Address, Username and Secret have none;
// an empty Name becomes the address.
func DefaultAsterisk() Asterisk {
	return Asterisk{Auth: AuthMD5, Learn: LearnAuto, PingInterval: 15 * time.Second}
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
