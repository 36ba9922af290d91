package demo

import (
	"net/netip"
	"slices"
	"time"
)

// role is what has to become of a participant.
type role uint8

const (
	customer role = iota // is never banned, and is answered to the end
	attacker             // is banned, and none of its packets arrives after that
	forger               // is reported; it sends too little to be banned, and nobody else is for it
)

// participant is somebody who sends packets.
type participant struct {
	name    string // short, for the table
	does    string
	role    role
	sources []netip.Addr // an attacker may have several, all of one IPv6 /64
	phones  []phoneAccount
	attack  attack
	pause   time.Duration // between two packets of an attacker
}

// phoneAccount is a phone's account. Its password may be an old one.
type phoneAccount struct {
	account, password string
	every             time.Duration // between two registrations
}

// attack is what an attacker does.
type attack uint8

const (
	scanAccounts      attack = iota + 1 // accounts that do not exist
	enumerateAccounts                   // a range of accounts, some of which exist
	guessPassword                       // passwords of one account
	guessManager                        // passwords of AMI
	injectLines                         // one packet with bytes that are meant for the AMI stream
)

// injectedUser is a From user that Asterisk's %-decoding turns into a line of the AMI stream which names a bystander.
// It arrives as the first RemoteAddress of the event.
const injectedUser = "%0d%0aRemoteAddress%3a%20IPV4%2fUDP%2f8.8.8.8%2f5"

// bystander is the address that injected names.
func bystander() netip.Addr { return netip.AddrFrom4([4]byte{8, 8, 8, 8}) }

// oldPassword is what a phone has that nobody told of the new one.
const oldPassword = "spring"

// The pace of the customers' phones. The engine reports an account as misconfigured from its third failure on, half a
// minute after the first.
const (
	registerInterval = 2 * time.Second
	failingInterval  = 7 * time.Second
)

// pbxPasswords are the passwords of the PBX, by account.
func pbxPasswords() map[string]string {
	return map[string]string{
		"201": "k7Lq2m", "202": "Wz81xa", "203": "p0Rt4e", "204": "autumn", "301": "u8Hs9d", "402": "autumn",
	}
}

// allParticipants is everybody who takes part. All addresses are for documentation only (RFC 5737, RFC 3849).
func allParticipants() []participant {
	ip := func(list ...string) (addrs []netip.Addr) {
		for _, s := range list {
			addrs = append(addrs, netip.MustParseAddr(s))
		}
		return addrs
	}
	right := func(account string) phoneAccount {
		return phoneAccount{account, pbxPasswords()[account], registerInterval}
	}
	wrong := func(account string) phoneAccount { return phoneAccount{account, oldPassword, failingInterval} }
	return []participant{
		{name: "lone phone", does: "has an old password", role: customer, sources: ip("203.0.113.90"),
			phones: []phoneAccount{wrong("402")}},
		{name: "office", does: "4 phones, one with an old password", role: customer, sources: ip("198.51.100.20"),
			phones: []phoneAccount{right("201"), right("202"), right("203"), wrong("204")}},
		{name: "home", does: "1 phone", role: customer, sources: ip("198.51.100.140"),
			phones: []phoneAccount{right("301")}},
		{name: "scanner", does: "tries accounts that do not exist", role: attacker, sources: ip("203.0.113.5"),
			attack: scanAccounts, pause: 50 * time.Millisecond},
		{name: "enumerator", does: "asks which accounts exist", role: attacker, sources: ip("203.0.113.40"),
			attack: enumerateAccounts, pause: 50 * time.Millisecond},
		{name: "guesser", does: "guesses the password of 201", role: attacker, sources: ip("198.51.100.66"),
			attack: guessPassword, pause: 70 * time.Millisecond},
		{name: "AMI guesser", does: "guesses passwords of AMI, over TCP", role: attacker, sources: ip("203.0.113.150"),
			attack: guessManager, pause: 100 * time.Millisecond},
		{name: "IPv6 scanner", does: "three addresses of one /64", role: attacker,
			sources: ip("2001:db8:bad::5", "2001:db8:bad::6e", "2001:db8:bad::c8"), attack: scanAccounts,
			pause: 60 * time.Millisecond},
		{name: "injector", does: "one packet that blames 8.8.8.8", role: forger, sources: ip("203.0.113.200"),
			attack: injectLines},
	}
}

// sourcesOf lists the addresses of participants.
func sourcesOf(participants []participant) (all []netip.Addr) {
	for _, p := range participants {
		all = append(all, p.sources...)
	}
	return all
}

// withoutIPv6 leaves out who needs IPv6, where the kernel has no IPv6.
func withoutIPv6(participants []participant) []participant {
	return slices.DeleteFunc(slices.Clone(participants), func(p participant) bool { return p.sources[0].Is6() })
}

// coveredBy reports whether a prefix covers one of the participant's addresses.
func (p *participant) coveredBy(prefix netip.Prefix) bool {
	return prefix.IsValid() && slices.ContainsFunc(p.sources, prefix.Contains)
}

// judgedSource is the participant as Ringwall judges it: an IPv4 address, an IPv6 /64.
func (p *participant) judgedSource() netip.Prefix {
	a := p.sources[0]
	bits := 32
	if a.Is6() {
		bits = 64
	}
	prefix, _ := a.Prefix(bits)
	return prefix
}

// sourceLabel is the judged source, written for a person.
func (p *participant) sourceLabel() string {
	if s := p.judgedSource(); !s.IsSingleIP() {
		return s.String()
	}
	return p.sources[0].String()
}

// earnsTrust reports whether a phone of the participant has the right password.
func (p *participant) earnsTrust() bool {
	return slices.ContainsFunc(p.phones, func(l phoneAccount) bool { return l.password == pbxPasswords()[l.account] })
}
