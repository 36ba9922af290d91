package config

import (
	"net/netip"
	"regexp"
	"time"
)

// Config is the whole file, validated, with every default filled in. See [Load].
type Config struct {
	Asterisk []Asterisk `yaml:"asterisk"`
	Policy   Policy     `yaml:"policy"`
	Geo      Geo        `yaml:"geo"`
	Firewall Firewall   `yaml:"firewall"`
	Sensors  Sensors    `yaml:"sensors"`
	Lists    []List     `yaml:"lists"`
	Export   Export     `yaml:"export"`
	CrowdSec CrowdSec   `yaml:"crowdsec"`
	Fleet    Fleet      `yaml:"fleet"`
	Metrics  Metrics    `yaml:"metrics"`
	Control  Control    `yaml:"control"`
	State    State      `yaml:"state"`
	Log      Log        `yaml:"log"`
	Notify   []Notify   `yaml:"notify"`
}

// Asterisk is one manager interface to listen to.
type Asterisk struct {
	Name         string        `yaml:"name"` // the address by default
	Address      string        `yaml:"address"`
	Username     string        `yaml:"username"`
	Secret       Secret        `yaml:"secret"`
	SecretFile   string        `yaml:"secret_file"`
	Auth         Auth          `yaml:"auth"`
	TLS          TLS           `yaml:"tls"`
	Learn        Learn         `yaml:"learn"`
	PingInterval time.Duration `yaml:"ping_interval"`
}

// Auth is how to log in to AMI.
type Auth string

// The ways to log in to AMI.
const (
	AuthMD5   Auth = "md5"
	AuthPlain Auth = "plain"
)

// Learn says whether Asterisk is asked for contacts and trunks.
type Learn string

// The values of learn.
const (
	LearnAuto Learn = "auto"
	LearnOff  Learn = "off"
)

// TLS is the encryption of one AMI connection.
type TLS struct {
	Enabled    bool   `yaml:"enabled"`
	CAFile     string `yaml:"ca_file"`
	ServerName string `yaml:"server_name"`
	Insecure   bool   `yaml:"insecure"`
}

// Mode says whether decisions reach the kernel.
type Mode string

// The modes, of the whole policy and of each service.
const (
	Enforce Mode = "enforce"
	Observe Mode = "observe"
)

// Policy is what the engine decides by.
type Policy struct {
	Mode       Mode            `yaml:"mode"`
	Threshold  float64         `yaml:"threshold"` // points at which a source is banned
	HalfLife   time.Duration   `yaml:"half_life"`
	Points     Points          `yaml:"points"`
	Honeypots  []string        `yaml:"honeypots"`
	Ban        Ban             `yaml:"ban"`
	Trust      Trust           `yaml:"trust"`
	IPv6Prefix int             `yaml:"ipv6_prefix"` // bits; a source is one such prefix
	Networks   Networks        `yaml:"networks"`
	Services   map[string]Mode `yaml:"services"` // by Asterisk's service name
	Signatures Signatures      `yaml:"signatures"`
	Allow      []AllowEntry    `yaml:"allow"`
	Proxies    Proxies         `yaml:"proxies"`
	MaxSources int             `yaml:"max_sources"`

	// Rules beyond points, each with its own switch (0 turns a rule off).
	Misconfigured MisconfiguredRule `yaml:"misconfigured"`
	Challenges    ChallengesRule    `yaml:"challenges"`
	Breach        BreachRule        `yaml:"breach"`
	Targeted      TargetedRule      `yaml:"targeted"`
	Roaming       RoamingRule       `yaml:"roaming"`
	NewPlace      NewPlaceRule      `yaml:"newplace"`
	Storm         StormRule         `yaml:"storm"`
	Limits        Limits            `yaml:"limits"`
}

// MisconfiguredRule tells a phone with an old password from a guesser: one account that fails at no more than
// PerMinute distinct guesses a minute, after a burst, is reported and not banned. Who fails on more than Accounts
// within an hour is guessing, however slowly.
type MisconfiguredRule struct {
	PerMinute float64 `yaml:"per_minute"`
	Burst     int     `yaml:"burst"`    // distinct guesses
	Accounts  int     `yaml:"accounts"` // that may fail so together, at a source without trust
}

// ChallengesRule judges challenges that nobody answers: for "<unknown>" after AnswerWithin without a login from that
// source; for known accounts from Accounts distinct ones on, but not in the first Warmup after the start, when
// nobody has had the time to earn trust, and of one such account what is more than PerMinute.
type ChallengesRule struct {
	AnswerWithin time.Duration `yaml:"answer_within"`
	Accounts     int           `yaml:"accounts"`
	PerMinute    float64       `yaml:"per_minute"`
	Warmup       time.Duration `yaml:"warmup"`
}

// BreachRule reports a login that follows Failures guesses of the same account by the same source.
type BreachRule struct {
	Failures int `yaml:"failures"`
}

// TargetedRule reports an account that fails from Sources distinct sources within Within; from then on one more failure
// bans a source that is not trusted.
type TargetedRule struct {
	Sources int           `yaml:"sources"`
	Within  time.Duration `yaml:"within"`
}

// RoamingRule allows Guesses more before a ban to a source that fails on an account which logged in elsewhere within
// Within.
type RoamingRule struct {
	Within  time.Duration `yaml:"within"`
	Guesses int           `yaml:"guesses"`
}

// NewPlaceRule reports an account that logs in from where it never was: after Learning, and before that where Places
// such places come within an hour.
type NewPlaceRule struct {
	Learning time.Duration `yaml:"learning"`
	Places   int           `yaml:"places"`
}

// StormRule suspends bans of sources that were trusted within Memory while Sources of them fail within Within.
type StormRule struct {
	Sources int           `yaml:"sources"`
	Within  time.Duration `yaml:"within"`
	Memory  time.Duration `yaml:"memory"`
}

// Limits bound what a spoofer of source addresses can make Ringwall do.
type Limits struct {
	Bans           int `yaml:"bans"`
	ForgeableBans  int `yaml:"forgeable_bans"`
	ForgeableRate  int `yaml:"forgeable_rate"` // bans a second
	ForgeableBurst int `yaml:"forgeable_burst"`
}

// Points is what each kind of evidence is worth; 0 ignores it.
type Points struct {
	UnknownAccount      float64 `yaml:"unknown_account"`
	WrongPassword       float64 `yaml:"wrong_password"`
	ACL                 float64 `yaml:"acl"`
	UnansweredChallenge float64 `yaml:"unanswered_challenge"`
	Manager             float64 `yaml:"manager"`
	Honeypot            float64 `yaml:"honeypot"`
	SilentGuess         float64 `yaml:"silent_guess"`
	Probing             float64 `yaml:"probing"`
	Scanner             float64 `yaml:"scanner"`
	MalformedSIP        float64 `yaml:"malformed_sip"`
	IAX                 float64 `yaml:"iax"`
	HTTP                float64 `yaml:"http"`
	Dialplan            float64 `yaml:"dialplan"`
}

// Signatures are marks of scanners' programs in SIP requests.
type Signatures struct {
	Builtin bool     `yaml:"builtin"`
	Files   []string `yaml:"files"`
}

// Sensors are the senses besides Asterisk's own events.
type Sensors struct {
	Tap      Tap `yaml:"tap"`
	TapGroup int `yaml:"tap_group"` // of NFLOG
	HEP      HEP `yaml:"hep"`
}

// Tap says whether packets to and from Asterisk are looked at.
type Tap string

// The values of tap.
const (
	TapAuto Tap = "auto"
	TapOn   Tap = "on"
	TapOff  Tap = "off"
)

// HEP is where Asterisk's copies of SIP messages come in (res_hep).
type HEP struct {
	Listen       string `yaml:"listen"` // "" is off
	PasswordFile string `yaml:"password_file"`
	Password     Secret `yaml:"-"` // of PasswordFile
	Forward      string `yaml:"forward"`
}

// Ban is how long bans last.
type Ban struct {
	First        time.Duration `yaml:"first"`
	Factor       float64       `yaml:"factor"`
	Max          time.Duration `yaml:"max"`
	ForgeableMax time.Duration `yaml:"forgeable_max"` // for evidence that one forged UDP packet can make
	Knock        uint32        `yaml:"knock"`         // packets a minute from each port, through a ban on such evidence
	KnockSource  uint32        `yaml:"knock_source"`  // and from all ports of a source
	Memory       time.Duration `yaml:"memory"`        // how long an offender is remembered after the last ban
}

// Trust is what a login with a password earns.
type Trust struct {
	TTL       time.Duration  `yaml:"ttl"`
	Tolerance float64        `yaml:"tolerance"` // × threshold, before trust ends
	Accounts  int            `yaml:"accounts"`  // distinct failing accounts, before trust ends
	FlowTTL   time.Duration  `yaml:"flow_ttl"`  // of a flow from which somebody logged in
	Match     *regexp.Regexp `yaml:"match"`     // accounts that may earn trust; nil is all
}

// Networks is the ban of whole networks.
type Networks struct {
	IPv4Prefix  int `yaml:"ipv4_prefix"`  // bits
	Sources     int `yaml:"sources"`      // distinct banned sources; 0 is off
	IPv6Sources int `yaml:"ipv6_sources"` // distinct attacking sources of a /56 or /48; 0 is off
}

// Proxies are addresses through which many customers log in: none is banned as a whole. Where nobody named one, so many
// accounts that log in through one flow, a transport with address and port, make it one; 0 is off.
type Proxies struct {
	Addresses []AllowEntry `yaml:"addresses"` // prefixes alone
	Accounts  int          `yaml:"accounts"`
}

// AllowEntry is one line of the allow list: a prefix, or a host name that is still to be resolved.
type AllowEntry struct {
	Prefix netip.Prefix // valid when Host is empty
	Host   string
}

// Scope says which packets of a banned source are dropped.
type Scope string

// The scopes: the ports of telephony only, or everything.
const (
	ScopeVoIP Scope = "voip"
	ScopeAll  Scope = "all"
)

// Owner is the use of nftables' table flags owner and persist (kernel 6.9).
type Owner string

// The values of owner.
const (
	OwnerAuto Owner = "auto"
	OwnerOn   Owner = "on"
	OwnerOff  Owner = "off"
)

// Firewall is the kernel's table.
type Firewall struct {
	Table    string `yaml:"table"`
	Scope    Scope  `yaml:"scope"`
	Ports    Ports  `yaml:"ports"`
	Priority int    `yaml:"priority"`
	Owner    Owner  `yaml:"owner"`
	Meter    Meter  `yaml:"meter"`
}

// Ports are the ports of scope voip. In the file they are the word auto, or a mapping of both lists.
type Ports struct {
	// Auto takes over whatever port Asterisk is found to listen on; UDP and TCP are closed in any case.
	Auto bool `yaml:"-"`

	UDP []uint16 `yaml:"udp"`
	TCP []uint16 `yaml:"tcp"`
}

// Meter limits packets of sources that are not trusted.
type Meter struct {
	Enabled bool   `yaml:"enabled"`
	Rate    uint64 `yaml:"rate"`  // packets a second
	Burst   uint32 `yaml:"burst"` // packets
}

// Fleet is what this node tells others, and takes from them, over NATS. Without servers there is none.
type Fleet struct {
	Servers         []string  `yaml:"servers"`
	CredentialsFile string    `yaml:"credentials_file"`
	TLS             FleetTLS  `yaml:"tls"`
	Name            string    `yaml:"name"`
	Node            string    `yaml:"node"` // "": of the host
	Share           []Shared  `yaml:"share"`
	Accept          []Shared  `yaml:"accept"`
	Quorum          int       `yaml:"quorum"`
	MaxPrefix       MaxPrefix `yaml:"max_prefix"`
	MaxRecords      int       `yaml:"max_records"` // of one node
	Rate            int       `yaml:"rate"`        // records a minute of one node
	Unban           Reach     `yaml:"unban"`
	Watch           Watch     `yaml:"watch"`
}

// Watch is whether a node looks which others are silent.
type Watch string

// The values of watch.
const (
	WatchAuto Watch = "auto" // in a fleet of up to 200 nodes
	WatchOn   Watch = "on"
	WatchOff  Watch = "off"
)

// Reach is where a person unbans who does not say where.
type Reach string

// The values of unban.
const (
	UnbanFleet Reach = "fleet" // at all nodes
	UnbanHere  Reach = "here"  // at this one alone
)

// FleetTLS is the encryption of the connection to a fleet's servers.
type FleetTLS struct {
	CAFile     string `yaml:"ca_file"`
	ServerName string `yaml:"server_name"`
}

// Shared is what nodes of a fleet tell each other.
type Shared string

// The values of share and accept.
const (
	SharedBans  Shared = "bans"
	SharedTrust Shared = "trust"
	SharedAllow Shared = "allow"
)

// MaxPrefix is the widest that other nodes may ban, unban or allow, in bits.
type MaxPrefix struct {
	IPv4 int `yaml:"ipv4"`
	IPv6 int `yaml:"ipv6"`
}

// Metrics is the listener of Prometheus' metrics and of the status page; an empty Listen turns both off.
type Metrics struct {
	Listen string `yaml:"listen"`
	Page   bool   `yaml:"page"` // the status page, beside the metrics
}

// Control is the socket of the commands.
type Control struct {
	Socket string `yaml:"socket"`
	Group  string `yaml:"group"`
}

// State is what survives a restart.
type State struct {
	Path string `yaml:"path"`
}

// Log is what is logged, and how.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // auto, text, json
}
