package config

import (
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/export"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/lists"
	"github.com/ringwall/ringwall/pkg/notify/message"
)

// setting is one key of the file. Its default, the check of its value, what [Config.Print] and
// examples/reference.yaml say about it, and whether it needs a restart follow from here; the field of [Config] with
// the same key holds its value.
type setting struct {
	path      string // as in policy.limits.bans; the entries of a list are asterisk[]
	byDefault any    // what holds where the file says nothing, nil where nothing does
	allowed   rule   // what may stand there, besides what the type of the field does not take
	restart   bool   // a change is not in force before a restart
	meaning   string // for a person; {least} and {most} are the bounds of allowed
	reason    string // why the default is what it is, or what stands in for one; empty where the meaning says enough
}

// allSettings are all keys, sections before what is in them, in the order of the file. They are made at each call, so
// that nobody shares a list.
func allSettings() []setting {
	udp := []uint16{5060, 5061, 4569}
	tcp := []uint16{5060, 5061, 5038, 8088, 8089}
	return []setting{
		{path: "asterisk", restart: true,
			meaning: "The Asterisks to listen to, one entry each. Every entry needs an address, a username and a " +
				"secret."},
		{path: "asterisk[].name",
			meaning: "How messages, metrics and commands call this Asterisk: up to 260 bytes, different for each.",
			reason:  "the address, since one machine seldom needs another name"},
		{path: "asterisk[].address",
			meaning: "Where its manager interface (AMI) listens: HOST:PORT. The port is 5038 when it is missing, " +
				"with TLS 5039."},
		{path: "asterisk[].username", allowed: checkedBy((*parser).checkUsername),
			meaning: "The user's section name in manager.conf. It needs read=security and no more."},
		{path: "asterisk[].secret",
			meaning: `That user's secret: text in double quotes, or "${VARIABLE}" for an environment variable. With ` +
				"neither secret nor secret_file the systemd credential ami-secret is read."},
		{path: "asterisk[].secret_file",
			meaning: "A file that holds only the secret: its whole path. It is refused when everybody can read it.",
			reason:  "none, since the configuration itself need not be readable for everybody"},
		{path: "asterisk[].auth", byDefault: AuthMD5, allowed: oneOf(AuthMD5, AuthPlain),
			meaning: "How to log in: md5 sends only a digest of the secret; plain sends the secret itself.",
			reason:  "the secret then never crosses the network, and every Asterisk can do it"},
		{path: "asterisk[].tls",
			meaning: "Encryption, where Asterisk has tlsenable=yes in manager.conf."},
		{path: "asterisk[].tls.enabled", byDefault: false,
			meaning: "Whether to speak TLS.",
			reason:  "AMI belongs on loopback, where TLS adds nothing"},
		{path: "asterisk[].tls.ca_file",
			meaning: "The certificate that signed Asterisk's: a PEM file, its whole path.",
			reason:  "the certificates of the system"},
		{path: "asterisk[].tls.server_name",
			meaning: "The name in Asterisk's certificate.",
			reason:  "the host of the address"},
		{path: "asterisk[].tls.insecure", byDefault: false,
			meaning: "Accept any certificate, an attacker's too.",
			reason:  "TLS without a check keeps nobody out"},
		{path: "asterisk[].learn", byDefault: LearnAuto, allowed: oneOf(LearnAuto, LearnOff),
			meaning: "Ask Asterisk for its trunks, which are then never banned, and for registered contacts, whose " +
				"sources are then trusted: auto asks as far as the user's privileges reach; off never asks.",
			reason: "what Asterisk knows about its own customers is the best protection from banning one"},
		{path: "asterisk[].ping_interval", byDefault: 4 * time.Second, allowed: inBounds(time.Second, 10*time.Minute),
			meaning: "How often to ask Asterisk for a sign of life: {least} to {most}. It has 10 s to answer.",
			reason:  "an Asterisk that hangs is told of within 15 s, at the cost of some small packets"},

		{path: "policy",
			meaning: "Who is an attacker, who is a customer, and what follows."},
		{path: "policy.mode", byDefault: Enforce, allowed: oneOf(Enforce, Observe),
			meaning: "enforce bans; observe makes no bans and only says whom it would have banned. Bans that are " +
				"there stay until they end; ringwall unban --all ends them.",
			reason: "a machine under attack should be protected from the first minute; begin with observe to see " +
				"first"},
		{path: "policy.threshold", byDefault: 10,
			allowed: inBounds(0.1, 1e6).withHint("policy.mode: observe to ban nobody"),
			meaning: "Points at which a source is banned: {least} to {most}.",
			reason: "five wrong passwords or three unknown accounts within minutes; a person who mistypes a " +
				"password twice stays far below"},
		{path: "policy.half_life", byDefault: 10 * time.Minute, allowed: inBounds(time.Second, longestDuration),
			meaning: "The time in which a source's points fall to half: {least} to {most}.",
			reason: "as long as fail2ban's findtime, so that a phone's mistakes of yesterday are forgotten and a " +
				"scanner's pace is not"},
		{path: "policy.points",
			meaning: "What each kind of evidence is worth, in points: 0 ignores it, at most 1000000."},
		{path: "policy.points.unknown_account", byDefault: 4, allowed: inBounds(0.0, 1e6).withHint("0 to ignore it"),
			meaning: "An attempt with an account that does not exist (InvalidAccountID).",
			reason: "a scanner guesses names and is out at the third; a phone with one wrong name is slower than " +
				"the half-life"},
		{path: "policy.points.wrong_password", byDefault: 2, allowed: inBounds(0.0, 1e6).withHint("0 to ignore it"),
			meaning: "An attempt with a wrong password (ChallengeResponseFailed, InvalidPassword).",
			reason: "people mistype passwords, so it is worth less than an unknown account; a guesser is out at the " +
				"fifth"},
		{path: "policy.points.acl", byDefault: 4, allowed: inBounds(0.0, 1e6).withHint("0 to ignore it"),
			meaning: "An attempt from an address that the account's ACL forbids (FailedACL).",
			reason:  "the administrator has already said that this address has no business there"},
		{path: "policy.points.unanswered_challenge", byDefault: 2,
			allowed: inBounds(0.0, 1e6).withHint("0 to ignore it"),
			meaning: "A challenge of Asterisk to an unknown account that no login follows (ChallengeSent).",
			reason:  "weak evidence, since a healthy phone may lose a packet; it takes five"},
		{path: "policy.points.manager", byDefault: 4, allowed: inBounds(0.0, 1e6).withHint("0 to ignore it"),
			meaning: "A failed login to the manager interface itself.",
			reason:  "only machines log in there, and only from few places"},
		{path: "policy.points.honeypot", byDefault: 100, allowed: inBounds(0.0, 1e6).withHint("0 to ignore it"),
			meaning: "An attempt with one of the honeypots below.",
			reason:  "ten times the threshold, since nobody but an attacker tries the name"},
		{path: "policy.points.silent_guess", byDefault: 10, allowed: inBounds(0.0, 1e6).withHint("0 to ignore it"),
			meaning: "A wrong password of which Asterisk sends no event, seen by a sensor.",
			reason:  "only bytes that no phone sends keep Asterisk silent; where it could be forged, it is 4"},
		{path: "policy.points.probing", byDefault: 2, allowed: inBounds(0.0, 1e6).withHint("0 to ignore it"),
			meaning: "A call of a guest to a number that does not exist, or a question after one more name, seen by " +
				"a sensor.",
			reason: "a wrong number is no attack; the fifth within minutes is a search"},
		{path: "policy.points.scanner", byDefault: 10, allowed: inBounds(0.0, 1e6).withHint("0 to ignore it"),
			meaning: "A request that bears the mark of a scanner's program, seen by a sensor: see signatures.",
			reason:  "no phone has one; a customer's address is told of, and not banned"},
		{path: "policy.points.malformed_sip", byDefault: 4, allowed: inBounds(0.0, 1e6).withHint("0 to ignore it"),
			meaning: "A SIP message that Asterisk cannot read, seen by a sensor.",
			reason:  "who sends a third one is no phone that works"},
		{path: "policy.points.iax", byDefault: 2, allowed: inBounds(0.0, 1e6).withHint("0 to ignore it"),
			meaning: "A wrong password over IAX2, seen by a sensor.",
			reason:  "as a wrong password"},
		{path: "policy.points.http", byDefault: 4, allowed: inBounds(0.0, 1e6).withHint("0 to ignore it"),
			meaning: "Wrong credentials for ARI, or the manager over HTTP, seen by a sensor.",
			reason:  "as for the manager: only machines log in there"},
		{path: "policy.points.dialplan", byDefault: 2, allowed: inBounds(0.0, 1e6).withHint("0 to ignore it"),
			meaning: "A wrong number that your dialplan reports: UserEvent(Ringwall,…). A honeypot number is worth " +
				"honeypot.",
			reason: "as probing"},
		{path: "policy.honeypots", byDefault: []string{}, allowed: checkedBy((*parser).checkHoneypots),
			meaning: "Account names that none of your phones has. Whoever tries one is banned at once.",
			reason:  "only you know which names your phones do not have"},
		{path: "policy.ban",
			meaning: "How long bans last."},
		{path: "policy.ban.first", byDefault: time.Hour, allowed: inBounds(time.Second, longestDuration),
			meaning: "The first ban of a source: {least} to {most}.",
			reason:  "long enough to send a scanner elsewhere, short enough for a customer who was banned by mistake"},
		{path: "policy.ban.factor", byDefault: 4,
			allowed: inBounds(1.0, 1000).withHint("1 for bans that are all equally long"),
			meaning: "Each further ban is this many times as long: {least} to {most}.",
			reason:  "1h, 4h, 16h, 64h, so that the fifth ban of an attacker lasts the whole week"},
		{path: "policy.ban.max", byDefault: week, allowed: inBounds(time.Second, longestDuration),
			meaning: "The longest ban: at least first, up to {most}.",
			reason:  "a week, and not for ever: addresses of dial-in customers change hands"},
		{path: "policy.ban.forgeable_max", byDefault: day, allowed: inBounds(time.Second, longestDuration),
			meaning: "The longest ban for evidence that a forged UDP packet could have made: {least} to {most}.",
			reason:  "whoever forges a provider's address takes it away for a day at most"},
		{path: "policy.ban.knock", byDefault: firewall.DefaultKnockPort, allowed: inBounds(0, 60),
			meaning: "Packets a minute that a ban on such evidence lets through from each port of its source, so " +
				"that whoever has a password logs in, which ends the ban: {least} (none) to {most}.",
			reason: "a login is two packets, and one of them may get lost; a customer whose address was forged is in " +
				"within a minute"},
		{path: "policy.ban.knock_source", byDefault: firewall.DefaultKnockSource, allowed: inBounds(1, 1000),
			meaning: "The same for all ports of a source together: {least} to {most}.",
			reason: "an attacker who takes all ports gets less than 20 guesses a minute; a customer gets in beside a " +
				"forger who sends one packet every ten seconds"},
		{path: "policy.ban.memory", byDefault: 30 * day, allowed: inBounds(0, longestDuration),
			meaning: "How long after its last ban a source counts as known, so that factor applies: {least} to {most}.",
			reason:  "a month, since attackers come back with the same machines for weeks"},
		{path: "policy.trust",
			meaning: "What a login with the right password earns its source."},
		{path: "policy.trust.ttl", byDefault: day, allowed: inBounds(0, longestDuration),
			meaning: "How long the trust lasts after the last login: {least} (no trust) to {most}.",
			reason: "a phone logs in every hour at least, so an office keeps its trust over a night and loses it " +
				"when it moves"},
		{path: "policy.trust.tolerance", byDefault: 10, allowed: inBounds(1.0, 1e6),
			meaning: "How many times the threshold a trusted source may reach before those who guess there are cut " +
				"off: {least} to {most}.",
			reason: "a phone with an old password behind a NAT of forty must not ban the other thirty-nine"},
		{path: "policy.trust.accounts", byDefault: 5, allowed: inBounds(1, 100_000),
			meaning: "How many different accounts may fail at a trusted source before its trust ends: {least} to " +
				"{most}.",
			reason: "one or two phones of an office are misconfigured at a time; more names are a search"},
		{path: "policy.trust.flow_ttl", byDefault: 2 * time.Hour, allowed: inBounds(0, longestDuration),
			meaning: "How long the exact sender of a login, its address, port and protocol, passes whatever bans its " +
				"address, after the last login: {least} (not at all) to {most}.",
			reason: "phones log in every hour at least, and a port may be another device's the day after"},
		{path: "policy.trust.match",
			meaning: `A regular expression (Go, RE2) of the account names that may earn trust; "" is all. Wazo: ` +
				`"^[a-z0-9]{8}$".`,
			reason: "all of them, unless you know better which names your phones have"},
		{path: "policy.ipv6_prefix", byDefault: 64,
			allowed: inBounds(32, 128).withHint("64: providers give a customer no less than a /64, and share a /32 " +
				"among all of theirs"), restart: true,
			meaning: "How many bits of an IPv6 address make a source: {least} to {most}.",
			reason:  "a provider gives each customer a /64 or more, and the customer changes addresses in it at will"},
		{path: "policy.networks",
			meaning: "Bans of whole networks."},
		{path: "policy.networks.ipv4_prefix", byDefault: 24, allowed: inBounds(16, 30).withHint("24"),
			meaning: "How large such an IPv4 network is, in bits: {least} to {most}.",
			reason:  "a /24 is the smallest network that is routed on its own, and so has one owner"},
		{path: "policy.networks.sources", byDefault: 0,
			allowed: severalOrNone(65536, "one banned source would ban its whole network").withHint("8"),
			meaning: "How many banned sources in a network ban the network: {least} to {most}, 0 is off.",
			reason:  "a network may hold customers whom Ringwall has not met yet"},
		{path: "policy.networks.ipv6_sources", byDefault: 8,
			allowed: severalOrNone(8, "one attacking source would ban its whole network").withHint("8"),
			meaning: "How many sources of a /56 or /48 of IPv6 that attack at once ban it, half as many over TCP: " +
				"{least} to {most}, 0 is off. A /48 needs three such /56.",
			reason: "whoever has a /48 has 65,536 sources; a network with a customer in it is never banned"},
		{path: "policy.services",
			meaning: "For each service of Asterisk that reports events: enforce, or observe as in mode. The ones " +
				"that are left out keep their default."},
		{path: "policy.services.PJSIP", byDefault: Enforce, allowed: oneOf(Enforce, Observe),
			meaning: "Phones and trunks by chan_pjsip.",
			reason:  "its addresses are those that the packets came from"},
		{path: "policy.services.AMI", byDefault: Enforce, allowed: oneOf(Enforce, Observe),
			meaning: "The manager interface.",
			reason:  "it speaks TCP, so that its addresses are proven"},
		{path: "policy.services.SIP", byDefault: Observe, allowed: oneOf(Enforce, Observe),
			meaning: "Phones and trunks by chan_sip, up to Asterisk 20.",
			reason:  "an attacker can make chan_sip report somebody else's address (Via with maddr)"},
		{path: "policy.services.IAX2", byDefault: Enforce, allowed: oneOf(Enforce, Observe),
			meaning: "Phones and trunks by IAX2, of which only a sensor tells.",
			reason:  "its addresses are those that the packets came from"},
		{path: "policy.services.HTTP", byDefault: Enforce, allowed: oneOf(Enforce, Observe),
			meaning: "ARI and the manager over HTTP, of which only a sensor tells.",
			reason:  "they speak TCP, so that their addresses are proven"},
		{path: "policy.signatures",
			meaning: "Marks of scanners' programs: names in User-Agent, addresses in From, To and Contact, injected " +
				"code. One request with such a mark is enough, unless its source is a customer's. A sensor is " +
				"needed to see them."},
		{path: "policy.signatures.builtin", byDefault: true,
			meaning: "Use the list that Ringwall brings.",
			reason:  "none of its lines fits any of the 600 names of phones and PBXes that its tests know"},
		{path: "policy.signatures.files", byDefault: []string{}, allowed: checkedBy((*parser).checkSignatureFiles),
			meaning: "Files with lines of your own, their whole paths.",
			reason:  "only you know what else calls you"},
		{path: "policy.allow", byDefault: []AllowEntry{}, allowed: withoutRepeats[AllowEntry](),
			meaning: "Addresses, networks and host names that are never banned. Host names are resolved again and " +
				"again.",
			reason: "the machine's own addresses, its gateways and what Asterisk tells by learn are protected anyway"},
		{path: "policy.proxies",
			meaning: "SIP proxies and the like, through which many customers log in. None is banned as a whole: what " +
				"is attacked through it is reported by account."},
		{path: "policy.proxies.addresses", byDefault: []AllowEntry{}, allowed: checkedBy((*parser).checkProxies),
			meaning: `Their addresses or networks: "198.51.100.9".`,
			reason:  "none, since only you know them; what is allowed needs no entry here"},
		{path: "policy.proxies.accounts", byDefault: 20,
			allowed: severalOrNone(100_000, "any address of two phones would be a proxy").withHint("20"),
			meaning: "How many accounts that log in through one connection or port, or five times as many from one " +
				"address, make it a proxy: {least} to {most}, 0 is only what is named.",
			reason: "phones behind NAT have a port each; a telephone with twenty accounts is rare"},
		{path: "policy.max_sources", byDefault: 1_000_000, allowed: inBounds(1000, 10_000_000),
			meaning: "How many sources are remembered at most: {least} to {most}. When there are more, the least " +
				"suspicious go first.",
			reason: "some 250 MB at the worst; a flood of forged addresses cannot fill the memory"},
		{path: "policy.misconfigured",
			meaning: "A phone with an old password is no guesser: an account that fails slowly is reported once an " +
				"hour, and bans nobody."},
		{path: "policy.misconfigured.per_minute", byDefault: 6, allowed: inBounds(0.0, 10_000),
			meaning: "How many different guesses a minute still count as a phone: up to {most}, 0 turns the rule off.",
			reason:  "phones try again every ten seconds at the fastest; a guesser in a hurry is far above"},
		{path: "policy.misconfigured.burst", byDefault: 4, allowed: inBounds(0, 10_000),
			meaning: "How many guesses may come at once: {least} to {most}.",
			reason:  "a phone tries a few times right after its start"},
		{path: "policy.misconfigured.accounts", byDefault: 2, allowed: inBounds(1, 64),
			meaning: "How many accounts of a source without trust may fail at a phone's pace within an hour: {least} " +
				"to {most}.",
			reason: "a home or a small shop whose passwords were changed; who tries more names is searching, " +
				"however slowly"},
		{path: "policy.challenges",
			meaning: "Asterisk asks every phone for its password. Who never answers is looking for accounts."},
		{path: "policy.challenges.answer_within", byDefault: 10 * time.Second, allowed: inBounds(0, time.Minute),
			meaning: "How long a source has to log in after Asterisk has asked an unknown account: up to {most}, 0s " +
				"turns the rule off.",
			reason: "a healthy phone answers in less than a second; repeated packets take some seconds more"},
		{path: "policy.challenges.accounts", byDefault: 20, allowed: inBounds(0, 100_000),
			meaning: "How many known accounts a source without trust may be asked for, and never answer: up to " +
				"{most}, 0 turns the rule off.",
			reason: "more phones than a new site brings in one moment; a list of your extensions is longer"},
		{path: "policy.challenges.per_minute", byDefault: 30, allowed: inBounds(0.0, 10_000),
			meaning: "How many requests of one known account a minute, after 20 at once, a source without trust may " +
				"leave unanswered: up to {most}, 0 turns the rule off.",
			reason: "keepalives of a phone are one each 15 s at most; a flood of calls is hundreds"},
		{path: "policy.challenges.warmup", byDefault: time.Hour, allowed: inBounds(0, week),
			meaning: "How long after the start of the daemon known accounts do not count: {least} to {most}.",
			reason:  "after an hour every phone has registered once, and has earned trust"},
		{path: "policy.breach",
			meaning: "A login that follows guesses of the same account by the same source earns no trust: somebody " +
				"has found a password."},
		{path: "policy.breach.failures", byDefault: 5, allowed: inBounds(0, 10_000),
			meaning: "From how many guesses on: up to {most}, 0 turns the rule off.",
			reason:  "a person finds the right one of two or three old passwords; five is a search"},
		{path: "policy.targeted",
			meaning: "An account that fails from many sources is under attack by a botnet; then one more failure " +
				"bans a source that is not trusted."},
		{path: "policy.targeted.sources", byDefault: 10,
			allowed: severalOrNone(100_000, "any mistyped password would be an attack").withHint("10"),
			meaning: "From how many sources on: {least} to {most}, 0 turns the rule off.",
			reason:  "no person tries one account from ten places"},
		{path: "policy.targeted.within", byDefault: time.Hour, allowed: inBounds(time.Second, 30*day),
			meaning: "In which time: {least} to {most}.",
			reason:  "a botnet takes its time between two guesses"},
		{path: "policy.roaming",
			meaning: "A customer on a journey mistypes the password at a new address, where nobody trusts it yet."},
		{path: "policy.roaming.within", byDefault: day,
			allowed: inBounds(time.Second, 30*day).withHint("roaming.guesses: 0 to turn the rule off"),
			meaning: "How long ago the account has logged in elsewhere at most: {least} to {most}.",
			reason:  "who travels was at work yesterday"},
		{path: "policy.roaming.guesses", byDefault: 2, allowed: inBounds(0, 1000),
			meaning: "How many more guesses such a source has: up to {most}, 0 turns the rule off.",
			reason:  "a mistake or two; a guesser gains nothing by it"},
		{path: "policy.newplace",
			meaning: "An account that logs in from a network where it never was, of another country or operator " +
				"where geo knows, is reported. Nobody is banned for it."},
		{path: "policy.newplace.learning", byDefault: week, allowed: inBounds(0, longestDuration),
			meaning: "How long an account must be known before: up to {most}, 0s turns the rule off.",
			reason:  "within a week most users have been where they usually are"},
		{path: "policy.newplace.places", byDefault: 3, allowed: inBounds(0, 8),
			meaning: "How many new places within an hour are reported sooner than that: up to {most}, 0 is none.",
			reason:  "nobody travels so fast; a stolen password is sold to several"},

		{path: "policy.storm",
			meaning: "Customers who all fail at the same moment are a fault of the PBX and not an attack: their bans " +
				"are suspended."},
		{path: "policy.storm.sources", byDefault: 5,
			allowed: severalOrNone(100_000, "a single source could suspend its own ban").withHint("5"),
			meaning: "How many sources that were trusted must fail: {least} to {most}, 0 turns the rule off.",
			reason:  "five sites do not forget their passwords in the same minute"},
		{path: "policy.storm.within", byDefault: time.Minute,
			allowed: inBounds(time.Second, day).withHint("storm.sources: 0 to turn the rule off"),
			meaning: "In which time: 1s to 1d.",
			reason:  "phones try again at once when a login fails"},
		{path: "policy.storm.memory", byDefault: week, allowed: inBounds(0, longestDuration),
			meaning: "How long a source counts as a customer after its trust has ended: {least} to {most}.",
			reason:  "a week, with the phones that are off at weekends"},
		{path: "policy.limits",
			meaning: "What somebody who forges addresses can make Ringwall do at most."},
		{path: "policy.limits.bans", byDefault: 1_000_000, allowed: inBounds(1, 10_000_000), restart: true,
			meaning: "Bans in force at once: {least} to {most}.",
			reason:  "some 100 MB in the kernel at the worst"},
		{path: "policy.limits.forgeable_bans", byDefault: 500_000, allowed: inBounds(0, 10_000_000),
			meaning: "How many of them may rest on evidence that a forged UDP packet could have made: {least} to bans.",
			reason:  "half, so that a forger leaves room for real attackers"},
		{path: "policy.limits.forgeable_rate", byDefault: 10_000, allowed: inBounds(1, 1_000_000),
			meaning: "How many of those may begin in a second: {least} to {most}.",
			reason:  "the kernel takes several times as many"},
		{path: "policy.limits.forgeable_burst", byDefault: 200_000, allowed: inBounds(1, 10_000_000),
			meaning: "How many of those may begin at once: {least} to {most}.",
			reason:  "a botnet that starts at one moment is banned at one moment"},

		{path: "geo",
			meaning: "Where addresses are registered: country and network operator in ringwall why, list and " +
				"history, on the status page and in notifications. Ringwall brings no such data; deploy/docs/geo.md " +
				"says where to get it."},
		{path: "geo.files", byDefault: []string{},
			meaning: "Files in MaxMind's format (.mmdb), their whole paths: countries, autonomous systems, or both. " +
				"A replaced file is read again within a minute; one that is missing is a warning and stops nothing.",
			reason: "only you can say whose data you want to use, and under which licence"},
		{path: "geo.multiply",
			meaning: "What points are multiplied by, by where their source is registered: 0.1 to 10. Where a country " +
				"and a system both have a multiplier, it is their product within the same bounds. A place gives no " +
				"points by itself, and none of this concerns sources that are trusted, allowed or protected."},
		{path: "geo.multiply.countries",
			meaning: "By country, as two letters of ISO 3166-1: {NL: 0.5}."},
		{path: "geo.multiply.asns",
			meaning: "By autonomous system, the network of one operator: {AS64496: 2}."},

		{path: "firewall",
			meaning: "The table in the kernel (nftables, family inet). Ringwall touches no other."},
		{path: "firewall.table", byDefault: "ringwall", allowed: checkedBy((*parser).checkTableName), restart: true,
			meaning: "Its name: letters, digits, _ and -.",
			reason:  "the name says whose it is"},
		{path: "firewall.scope", byDefault: ScopeVoIP, allowed: oneOf(ScopeVoIP, ScopeAll),
			meaning: "What a banned source loses: voip is the ports below; all is everything, SSH included.",
			reason:  "a customer who is banned by mistake still reaches the web page, and you still reach SSH"},
		{path: "firewall.ports", byDefault: "auto",
			meaning: "The ports of scope voip. auto: the ports that Asterisk is seen to listen on, those that Docker " +
				"or another NAT publishes for it included, and in any case " + usualPorts(udp, tcp) +
				". Or only these: {udp: [5060], tcp: [5060, 5061]}; ringwall status says where Asterisk listens " +
				"elsewhere.",
			reason: "a ban that leaves a port of Asterisk open stops nothing"},
		{path: "firewall.ports.udp", byDefault: udp, allowed: portList(),
			meaning: "Ports from {least} to {most}.",
			reason:  "SIP, SIP over TLS and IAX2. RTP is not here: it follows a call, and its ports are many"},
		{path: "firewall.ports.tcp", byDefault: tcp, allowed: portList(),
			meaning: "Ports from {least} to {most}.",
			reason:  "SIP, SIP over TLS, the manager interface, and Asterisk's HTTP server for WebSockets"},
		{path: "firewall.priority", byDefault: -300,
			// include/uapi/linux/netfilter_ipv4.h: NF_IP_PRI_CONNTRACK_DEFRAG is -400, NF_IP_PRI_CONNTRACK -200.
			allowed: inBounds(-399, -201).withHint("-300: after fragments are joined (-400), before connection " +
				"tracking (-200), or running calls go on"),
			meaning: "When the chain runs, at hook prerouting: {least} to {most}.",
			reason: "after fragments are joined (-400) and before connection tracking (-200), so that running calls " +
				"of a banned source end too"},
		{path: "firewall.owner", byDefault: OwnerAuto, allowed: oneOf(OwnerAuto, OwnerOn, OwnerOff), restart: true,
			meaning: "Table flags owner and persist of Linux 6.9, which keep nft flush ruleset and other programs " +
				"away: auto uses them where they work; on demands them; off leaves the table to nft.",
			reason: "protection where it works, no failure where it does not"},
		{path: "firewall.meter",
			meaning: "A limit of packets to the ports above for sources that are neither trusted nor allowed, before " +
				"Asterisk sees them. A login ends it for its source."},
		{path: "firewall.meter.enabled", byDefault: true,
			meaning: "Whether packets are limited.",
			reason: "of thousands of guesses that come at once all are answered before the first can lead to a ban; " +
				"so some hundred are"},
		{path: "firewall.meter.rate", byDefault: firewall.DefaultMeterRate, allowed: inBounds(1, 1_000_000),
			meaning: "Packets a second from one source: {least} to {most}.",
			reason: "a provider whom Ringwall does not know begins thirty calls a second; a guesser is banned before " +
				"it counts"},
		{path: "firewall.meter.burst", byDefault: firewall.DefaultMeterBurst, allowed: inBounds(1, 10_000_000),
			meaning: "Packets from one source at once: {least} to {most}. Over TCP the bytes count as well, 512 for " +
				"each.",
			reason: "forty phones of an office that start at once over UDP send 80 until all are registered, and " +
				"over TLS wait for a second or two"},

		{path: "sensors",
			meaning: "Senses besides Asterisk's events, for what Asterisk says nothing of."},
		{path: "sensors.tap", byDefault: TapAuto, allowed: oneOf(TapAuto, TapOn, TapOff),
			meaning: "Look at the heads of packets to the ports above, and of Asterisk's answers, by the kernel's " +
				"NFLOG: auto where the kernel has it; on demands it; off sees Asterisk's events alone.",
			reason: "one strange byte in a request, and Asterisk sends no event of a guess or a stolen login"},
		{path: "sensors.tap_group", byDefault: 506, allowed: inBounds(1, 65535),
			meaning: "The number of the NFLOG group: {least} to {most}. Another program may have one of its own.",
			reason:  "programs that read such groups by themselves, such as ulogd, begin at 0"},
		{path: "sensors.hep",
			meaning: "Asterisk's copies of SIP messages (res_hep), in which TLS and WSS can be read, too."},
		{path: "sensors.hep.listen",
			meaning: `The address and UDP port where they come in: "127.0.0.1:9061", as capture_address in ` +
				`hep.conf; "" is off.`,
			reason: "Asterisk sends them only after a change of hep.conf: ringwall doctor says which"},
		{path: "sensors.hep.password_file", allowed: checkedBy((*parser).checkWholePathOrNone),
			meaning: "The file with capture_password of hep.conf, its whole path.",
			reason:  "none on loopback; elsewhere it is needed"},
		{path: "sensors.hep.forward",
			meaning: `Where each copy is sent on as it came, HOST:PORT: for Homer, since Asterisk sends to one ` +
				`place only; "" is nowhere.`,
			reason: "only you know whether you have one"},

		{path: "lists",
			meaning: "Lists of known attackers, one entry each, whose packets to the ports above are dropped. " +
				"Nothing is fetched that does not stand here. What is allowed, trusted, a trunk's, private or this " +
				"machine's own, is never touched by a list. With its name alone: apiban (with key_file), voipbl, " +
				"spamhaus-drop, spamhaus-drop-v6, blocklist-de-sip. See deploy/docs/lists.md."},
		{path: "lists[].name",
			meaning: "How messages, metrics and ringwall lists call it: small letters, digits, - and _, up to 32, " +
				"different for each."},
		{path: "lists[].url",
			meaning: `Where it is: "https://…", never shown again, since such addresses may hold a key. {key} in it ` +
				"is replaced by the key. Redirects to other hosts are refused.",
			reason: "that of the list with this name"},
		{path: "lists[].url_file",
			meaning: "A file that holds only the url: its whole path. It is refused when everybody can read it.",
			reason:  "none"},
		{path: "lists[].file",
			meaning: "A file of this machine, its whole path, in place of a url.",
			reason:  "none"},
		{path: "lists[].format", byDefault: lists.Auto, allowed: oneOf(lists.Formats()...),
			meaning: "plain and netset: an address or network a line; ndjson: an object a line, as Spamhaus; apiban; " +
				"crowdsec: a LAPI's stream of decisions, or lines; auto looks how it begins.",
			reason: "they cannot be mistaken for each other"},
		{path: "lists[].key_file",
			meaning: "A file that holds only the key of the list's publisher, or USER:PASSWORD: its whole path. It " +
				"is sent as X-Api-Key, or by basic authentication, where the url has no {key}.",
			reason: "none; APIBAN and CrowdSec give you one"},
		{path: "lists[].refresh", byDefault: time.Duration(0), allowed: checkedBy((*parser).checkRefresh),
			meaning: "How often it is fetched: 1m to 7d, or 0 for the default. What has not changed is not sent again.",
			reason:  "as often as its publisher wants it, else 4h"},
		{path: "lists[].mode", byDefault: Enforce, allowed: oneOf(Enforce, Observe),
			meaning: "enforce drops; observe counts what would be dropped.",
			reason:  "who asks for a list wants it; observe for a week shows what it is good for"},
		{path: "lists[].ttl", byDefault: week, allowed: inBounds(time.Hour, longestDuration),
			meaning: "How long a list counts that cannot be fetched, and each address of APIBAN's: {least} to {most}.",
			reason:  "addresses change hands, and APIBAN asks for a week"},
		{path: "lists[].max_entries", byDefault: 250_000, allowed: inBounds(1, 1<<20),
			meaning: "A longer list is refused, and the one before stays: {least} to {most}.",
			reason:  "the longest of those with a name has 100000; each takes some 100 bytes, twice"},
		{path: "lists[].max_prefix", byDefault: 10, allowed: inBounds(8, 32),
			meaning: "Wider networks in a list are left out: bits of IPv4, and twice as many of IPv6; {least} to " +
				"{most}.",
			reason: "nobody's attackers have more than four million addresses; what a list says of all of them is " +
				"a mistake"},

		{path: "export",
			meaning: "Our own bans for other firewalls. See deploy/docs/export.md."},
		{path: "export.listen",
			meaning: `Where http://HOST:PORT/ serves them; "" is nowhere. Elsewhere than on loopback it needs ` +
				"token_file.",
			reason: "only you know who may read whom you ban"},
		{path: "export.file", allowed: checkedBy((*parser).checkWholePathOrNone),
			meaning: "A file that is written each time that they change: its whole path, where the service may " +
				"write, as in /var/lib/ringwall.",
			reason: "none"},
		{path: "export.format", byDefault: export.Plain, allowed: oneOf(export.Formats()...),
			meaning: "plain: an address or network a line (pfSense, OPNsense); json; nft: for nft -f; mikrotik: for " +
				"/import.",
			reason: "nearly every firewall reads it"},
		{path: "export.proven_only", byDefault: true,
			meaning: "Leave out what a forged packet could have made, and bans of one service: another firewall lets " +
				"nobody knock.",
			reason: "whoever forges a customer's address must not get it closed everywhere"},
		{path: "export.token_file", allowed: checkedBy((*parser).checkWholePathOrNone),
			meaning: "A file that holds only the token, which who reads sends as bearer or as password: its whole " +
				"path.",
			reason: "none on loopback; elsewhere it is needed"},

		{path: "crowdsec",
			meaning: "A CrowdSec LAPI that is told of our bans, and whose allow lists are honoured. See " +
				"deploy/docs/crowdsec.md."},
		{path: "crowdsec.url",
			meaning: "Where it is: https://HOST:PORT, or http:// to this machine.",
			reason:  "that of credentials_file"},
		{path: "crowdsec.credentials_file", allowed: checkedBy((*parser).checkWholePathOrNone),
			meaning: "The file with url, login and password that cscli machines add NAME --auto --file FILE writes: " +
				"its whole path.",
			reason: "none; only you know whether you have a LAPI"},
		{path: "crowdsec.ca_file", allowed: checkedBy((*parser).checkWholePathOrNone),
			meaning: "The certificate that signed the LAPI's: a PEM file, its whole path.",
			reason:  "the certificates of the system"},
		{path: "crowdsec.proven_only", byDefault: true,
			meaning: "Leave out what a forged packet could have made, and bans of one service: CrowdSec's bouncers " +
				"close everything.",
			reason: "whoever forges a customer's address must not get it closed everywhere"},

		{path: "fleet",
			meaning: "Share bans, trust and what is allowed with the other PBXes of the same operator, over NATS " +
				"with JetStream. deploy/docs/fleet.md says how."},
		{path: "fleet.servers", byDefault: []string{}, allowed: checkedBy((*parser).checkFleetServers),
			meaning: "The servers: tls://HOST:PORT, or nats://HOST:PORT on a network that nobody else reads. None is " +
				"no fleet.",
			reason: "only you can say who your other nodes are"},
		{path: "fleet.credentials_file", allowed: checkedBy((*parser).checkWholePathOrNone),
			meaning: "The file with this node's credentials for the servers (.creds, as nsc writes it), its whole " +
				"path."},
		{path: "fleet.tls",
			meaning: "How the servers prove who they are, where they speak TLS."},
		{path: "fleet.tls.ca_file", allowed: checkedBy((*parser).checkWholePathOrNone),
			meaning: "The certificate that signed theirs: a PEM file, its whole path.",
			reason:  "the certificates of the system"},
		{path: "fleet.tls.server_name",
			meaning: "The name in their certificate.",
			reason:  "the host of the address"},
		{path: "fleet.name", byDefault: "ringwall", allowed: checkedBy((*parser).checkFleetName),
			meaning: "What the fleet is called: 1 to 32 letters, digits, - or _. Two fleets on the same servers need " +
				"two names.",
			reason: "most operators have one"},
		{path: "fleet.node", allowed: checkedBy((*parser).checkFleetNode),
			meaning: "What this node is called: 1 to 32 letters, digits, - or _. No two nodes may have the same " +
				"name, and the servers should let each publish under its own alone.",
			reason: "the first part of the host's name"},
		{path: "fleet.share", byDefault: []Shared{SharedBans, SharedTrust, SharedAllow},
			allowed: checkedBy((*parser).checkShared),
			meaning: "What others are told: bans, with what persons unban; trust, whose users logged in with a " +
				"password; allow, what ringwall allow add allows. Never private addresses, which are others at each " +
				"site.",
			reason: "who is an attacker or a customer at one site is so at all of them"},
		{path: "fleet.accept", byDefault: []Shared{SharedBans, SharedTrust, SharedAllow},
			allowed: checkedBy((*parser).checkShared),
			meaning: "What is taken from others: the same words. Nobody is banned so whom this machine allows, whom " +
				"its Asterisk knows, or who logged in.",
			reason: "what one learns all know"},
		{path: "fleet.quorum", byDefault: 2, allowed: inBounds(1, 1000),
			meaning: "How many nodes must have seen what a forged packet could have made, before it binds the " +
				"others: {least} to {most}. Of what is proven one is enough.",
			reason: "one forged packet at one site bans nobody elsewhere"},
		{path: "fleet.max_prefix",
			meaning: "The widest network that others may ban, unban or allow here."},
		{path: "fleet.max_prefix.ipv4", byDefault: 24, allowed: inBounds(8, 32),
			meaning: "Bits of IPv4: {least} to {most}.",
			reason:  "as wide as the networks that Ringwall bans by itself"},
		{path: "fleet.max_prefix.ipv6", byDefault: 48, allowed: inBounds(16, 64),
			meaning: "Bits of IPv6: {least} to {most}.",
			reason:  "as wide as the networks that Ringwall bans by itself"},
		{path: "fleet.max_records", byDefault: 50_000, allowed: inBounds(100, 1_000_000),
			meaning: "How many bans one node may have told that are still true, and how many other things: {least} " +
				"to {most}; all nodes together, twenty times as many. More are refused, and told of.",
			reason: "a botnet's addresses; some 20 MB of memory for a node that tells so many bans"},
		{path: "fleet.rate", byDefault: 6000, allowed: inBounds(1, 1_000_000),
			meaning: "How many things a minute one node may tell, once it has told max_records: {least} to {most}; " +
				"bans, and as many other things.",
			reason: "a hundred new attackers a second"},
		{path: "fleet.unban", byDefault: UnbanFleet, allowed: oneOf(UnbanFleet, UnbanHere),
			meaning: "Where ringwall unban and the status page let an address in: at all nodes of the fleet, or here " +
				"alone. --fleet and --here say it for one unban.",
			reason: "a customer who is let in at one site goes to the next one"},
		{path: "fleet.watch", byDefault: WatchAuto, allowed: oneOf(WatchAuto, WatchOn, WatchOff),
			meaning: "Look which other nodes are silent. auto is while there are no more than 200; in a larger fleet " +
				"set it on where somebody looks at the metrics.",
			reason: "each that looks hears of all others every minute: of 10,000 it is 22 kB a second"},

		{path: "metrics",
			meaning: "Prometheus' metrics, and a page for people."},
		{path: "metrics.listen", byDefault: "127.0.0.1:9646",
			meaning: `Where http://HOST:PORT/metrics and the status page http://HOST:PORT/ are served; "" turns both ` +
				"off.",
			reason: "they have no password, so they stay on this machine"},
		{path: "metrics.page", byDefault: true,
			meaning: "Serve the status page. It shows addresses and account names to whoever reaches metrics.listen, " +
				"and can change nothing without: ringwall page.",
			reason: "on loopback only users of this machine see it"},

		{path: "control",
			meaning: "The socket of the commands (status, ban, unban, why …)."},
		{path: "control.socket", byDefault: "/run/ringwall/ringwall.sock",
			allowed: checkedBy((*parser).checkSocketPath), restart: true,
			meaning: "Its whole path, up to 107 bytes.",
			reason:  "where systemd's RuntimeDirectory puts it"},
		{path: "control.group", allowed: checkedBy((*parser).checkGroup), restart: true,
			meaning: `The group that may use the commands without sudo; "" is the daemon's own.`,
			reason:  "the daemon's own, since only you can say who may unban an attacker"},

		{path: "state",
			meaning: "What survives a restart."},
		{path: "state.path", byDefault: "/var/lib/ringwall/state.db", allowed: checkedBy((*parser).checkWholePath),
			restart: true,
			meaning: "The file, its whole path.",
			reason:  "where systemd's StateDirectory puts it"},

		{path: "log",
			meaning: "What is logged, and how."},
		{path: "log.level", byDefault: "info", allowed: oneOf("debug", "info", "warn", "error"),
			meaning: "debug, info, warn or error.",
			reason:  "decisions and changes of state, and not every event"},
		{path: "log.format", byDefault: "auto", allowed: oneOf("auto", "text", "json"), restart: true,
			meaning: "auto is the journal's text under systemd, else text; text; json is one object a line.",
			reason:  "what the place where the log goes can read"},

		{path: "notify",
			meaning: "Who is told of decisions, one entry each: a web address (url), a program (exec) or people by " +
				"mail (smtp). A ban never waits for it. examples/notify.yaml shows some."},
		{path: "notify[].name",
			meaning: "How the log and the metric ringwall_notifications_total call it: up to 64 bytes, different for " +
				"each.",
			reason: "the template, or the program without its folder"},
		{path: "notify[].url",
			meaning: `Where to send it: "https://…", never shown again, since such addresses are passwords. ` +
				`"${VARIABLE}" in it is replaced by an environment variable, {id} by the message's own name. ` +
				"Redirects are refused, certificates checked."},
		{path: "notify[].url_file",
			meaning: "A file that holds only the url: its whole path. It is refused when everybody can read it.",
			reason:  "none, since the configuration itself need not be readable for everybody"},
		{path: "notify[].method",
			meaning: "POST or PUT.",
			reason:  "POST, for Matrix PUT"},
		{path: "notify[].token",
			meaning: `Sent as "Authorization: Bearer TOKEN", unless the body has {{json .Token}}. May hold ` +
				`"${VARIABLE}".`,
			reason: "none; Slack, Discord and Telegram have theirs in the url"},
		{path: "notify[].token_file",
			meaning: "A file that holds only the token: its whole path. It is refused when everybody can read it.",
			reason:  "none"},
		{path: "notify[].headers",
			meaning: `More headers: {NAME: "value"}. Values may hold "${VARIABLE}", and are never shown.`},
		{path: "notify[].ca_file",
			meaning: "The certificate that signed the server's: a PEM file, its whole path.",
			reason:  "the certificates of the system"},
		{path: "notify[].template", byDefault: message.Generic,
			meaning: "The form of the message: generic (JSON with every field of the decision), slack (Mattermost " +
				"and Rocket.Chat read it too), discord, telegram, ntfy, matrix.",
			reason: "a program of your own reads it best"},
		{path: "notify[].to",
			meaning: "The receiver, where the body names it: Telegram's chat_id, ntfy's topic.",
			reason:  "none; the other services have it in the url"},
		{path: "notify[].body",
			meaning: "A template of your own (Go, text/template), in which {{json .FIELD}} writes a value with its " +
				"quotes. Fields: ID, Time, Host, Title, Text, Action, Source, Prefix, Reason, Points, Score, " +
				"Account, Service, Transport, Proven, Seconds, Duration, PBX, Detail, Country, ASN, ASName, To, " +
				"Token; in a summary Count, Actions, Prefixes.",
			reason: "none; template says the form"},
		{path: "notify[].content_type", byDefault: message.JSON,
			meaning: "What the body is. One of JSON is checked before it is used.",
			reason:  "nearly every service reads JSON"},
		{path: "notify[].exec", byDefault: []string{},
			meaning: "A program to start instead, its whole path and its arguments, without a shell: it finds the " +
				"decision in RINGWALL_ACTION, RINGWALL_PREFIX, RINGWALL_SOURCE, RINGWALL_REASON, RINGWALL_ACCOUNT, " +
				"RINGWALL_COUNTRY … and as JSON on its standard input. Arguments are no place for secrets. What it " +
				"leaves running is ended with it.",
			reason: "none"},
		{path: "notify[].smtp",
			meaning: "Who is told by mail instead. What comes in a flood is one mail that counts it."},
		{path: "notify[].smtp.host",
			meaning: "The server that takes the mail: a name or an address."},
		{path: "notify[].smtp.port", byDefault: 587, allowed: inBounds(1, 65535),
			meaning: "Its port: 587, or 465 with tls: always; 25 on this machine.",
			reason:  "where servers take mail from their users (RFC 6409)"},
		{path: "notify[].smtp.tls", byDefault: TLSStart, allowed: oneOf(TLSStart, TLSAlways, TLSNever),
			meaning: "starttls demands it after the greeting, always begins with it, never sends in clear: for a " +
				"server on this machine. Certificates are checked, against ca_file where there is one.",
			reason: "a password and attackers' addresses are nobody else's business"},
		{path: "notify[].smtp.user",
			meaning: "Who logs in: often the whole address.",
			reason:  "none, for a server that knows this machine"},
		{path: "notify[].smtp.password",
			meaning: `The user's password. May hold "${VARIABLE}".`,
			reason:  "none"},
		{path: "notify[].smtp.password_file",
			meaning: "A file that holds only the password: its whole path. It is refused when everybody can read it.",
			reason:  "none"},
		{path: "notify[].smtp.from",
			meaning: "Whose mail it is: NAME@DOMAIN. Many servers take none but the user's own address."},
		{path: "notify[].smtp.to", byDefault: []string{},
			meaning: "Who gets it: up to 20 addresses.",
			reason:  "none; one has to be named"},
		{path: "notify[].actions",
			byDefault: []string{"ban", "breach", "tampering", "targeted", "guessing", "leak", "newplace", "proxy",
				"blind", "misconfigured", "review"},
			meaning: "Of what: ban, extend, unban, trust, untrust, misconfigured, breach, tampering, targeted, " +
				"guessing, leak, newplace, proxy, blind, cut, observe, review.",
			reason: "what a person may want to act on"},
		{path: "notify[].reasons", byDefault: []string{},
			meaning: "Only of decisions with one of these reasons, as ringwall history shows them; [] is all.",
			reason:  "all of them"},
		{path: "notify[].pbx", byDefault: []string{},
			meaning: "Only of decisions about these Asterisks, by name; [] is all, and bans by hand too.",
			reason:  "all of them"},
		{path: "notify[].rate",
			meaning: "A bound for the messages of each action, so that a flood of bans hides no breach. What exceeds " +
				"it is summed up in one message a minute later."},
		{path: "notify[].rate.per_minute", byDefault: 10, allowed: inBounds(0.0, 6000).withHint("0 for no bound"),
			meaning: "Messages a minute: up to {most}, 0 is no bound.",
			reason: "a person reads no more, and chat programs refuse more; mails are 1 a minute where nothing is " +
				"given"},
		{path: "notify[].rate.burst", byDefault: 20, allowed: inBounds(1, 1000),
			meaning: "Messages at once: {least} to {most}.",
			reason:  "a scan from a few addresses is told one by one; mails are 5 where nothing is given"},
		{path: "notify[].timeout", byDefault: 10 * time.Second, allowed: inBounds(time.Second, 5*time.Minute),
			meaning: "How long one attempt, or the program, may take: {least} to {most}. Attempts that time out, are " +
				"told 429 or 5xx, or find no connection are repeated for an hour.",
			reason: "a healthy service answers within a second"},
	}
}

// usualPorts are those that firewall.ports: auto closes in any case.
func usualPorts(udp, tcp []uint16) string {
	return "UDP " + strings.Join(formatPorts(udp), ", ") + " and TCP " + strings.Join(formatPorts(tcp), ", ")
}

func formatPorts(numbers []uint16) []string {
	list := make([]string, len(numbers))
	for i, n := range numbers {
		list[i] = formatInt(n)
	}
	return list
}

// settingsByPath are the settings under their paths.
func settingsByPath() map[string]setting {
	all := allSettings()
	m := make(map[string]setting, len(all))
	for _, s := range all {
		m[s.path] = s
	}
	return m
}

// setDefaults fills v, which is what stands at path (with a point behind it), with the defaults of the keys in it.
// Entries of lists further in have theirs when there is one.
func setDefaults(all []setting, v reflect.Value, path string) {
	for _, s := range all {
		if inside, ok := strings.CutPrefix(s.path, path); ok && s.byDefault != nil && !strings.Contains(inside, "[]") {
			s.setDefault(v, inside)
		}
	}
}

// setDefault puts the default where path leads to from v.
func (s *setting) setDefault(v reflect.Value, path string) {
	key, rest, further := strings.Cut(path, ".")
	value := reflect.ValueOf(s.byDefault)
	switch {
	case v.Kind() == reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
		v.SetMapIndex(reflect.ValueOf(key), value)
	case further:
		s.setDefault(fieldOf(v, key), rest)
	case fieldOf(v, key).Type() == reflect.TypeFor[Ports]():
		fieldOf(v, key).Addr().Interface().(*Ports).Auto = s.byDefault == "auto"
	case value.Kind() == reflect.Slice && value.Len() == 0: // no list is as good
	default:
		fieldOf(v, key).Set(value.Convert(fieldOf(v, key).Type()))
	}
}

// fieldOf is the field of a section that holds a key.
func fieldOf(section reflect.Value, key string) reflect.Value {
	for i := range section.NumField() {
		if keyName(section.Type().Field(i)) == key {
			return section.Field(i)
		}
	}
	panic("policy: no field for the key " + key)
}

// eachValue calls visit with every value that a path leads to from v, and where it stands: one, or one of each entry
// of the lists on the way.
func eachValue(v reflect.Value, path, at string, visit func(at string, v reflect.Value)) {
	key, rest, further := strings.Cut(path, ".")
	if at != "" {
		at += "."
	}
	name, entries := strings.CutSuffix(key, "[]")
	at += name
	if v.Kind() == reflect.Map {
		v = v.MapIndex(reflect.ValueOf(name))
	} else {
		v = fieldOf(v, name)
	}
	switch {
	case entries:
		for i := range v.Len() {
			eachValue(v.Index(i), rest, at+"["+strconv.Itoa(i)+"]", visit)
		}
	case further:
		eachValue(v, rest, at, visit)
	default:
		visit(at, v)
	}
}

// NeedRestart names the keys that two configurations differ in and that a running daemon does not take over.
func NeedRestart(before, after *Config) []string {
	var keys []string
	for _, s := range allSettings() {
		if !s.restart {
			continue
		}
		old := reflect.Value{}
		eachValue(reflect.ValueOf(before).Elem(), s.path, "", func(_ string, v reflect.Value) { old = v })
		eachValue(reflect.ValueOf(after).Elem(), s.path, "", func(at string, v reflect.Value) {
			if !reflect.DeepEqual(old.Interface(), v.Interface()) {
				keys = append(keys, at)
			}
		})
	}
	return keys
}
