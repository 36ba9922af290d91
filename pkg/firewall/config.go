package firewall

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Scope says which packets of a banned source are dropped.
type Scope uint8

const (
	// VoIP drops only what goes to the configured UDP and TCP ports, so that a person who is logged in by SSH from
	// a banned address stays logged in.
	VoIP Scope = iota
	// All drops every packet of a banned source.
	All
)

// String returns the word that stands in the configuration.
func (s Scope) String() string {
	if s == All {
		return "all"
	}
	return "voip"
}

// Owner says whether the table carries the flags owner and persist (kernel 6.9 and later), which protect it from
// `nft flush ruleset` and from a firewall reload. The flag owner alone is never used: it would delete the table,
// and with it every ban, when the process ends.
type Owner uint8

const (
	// Auto sets the flags where the kernel knows both of them.
	Auto Owner = iota
	// On demands them: EnsureTable fails where the kernel does not know them.
	On
	// Off leaves the table open to an administrator's nft.
	Off
)

// String returns the word that stands in the configuration.
func (o Owner) String() string {
	switch o {
	case On:
		return "on"
	case Off:
		return "off"
	}
	return "auto"
}

// Meter limits the packets to the VoIP ports from sources that are neither allowed nor trusted, and over TCP the bytes:
// meterBytes times Burst in a second, minVolume at least. A full meter lets packets pass.
type Meter struct {
	Enabled bool
	Rate    uint32 // packets a second for one source
	Burst   uint32 // packets that may come at once
}

// meterBytes are about as many as the shortest request to log in has. What comes over TCP in one packet, as the meter
// sees it, may be 64 kB, and a hundred requests.
const (
	meterBytes = 512
	minVolume  = 16 << 10 // a segment and more has to pass
)

// Knock is the trickle that gets through a ban of UDP (CloseUDPKnock), so that whoever can log in gets in: packets a
// minute, of which KnockBurst may come at once from a source.
type Knock struct {
	Port   uint32 // of one address and source port; 0: nothing gets through
	Source uint32 // of one source with all its ports
}

// KnockBurst is how many packets a source may send at once through the door of a ban of UDP. It is small, since an
// attacker may come from many ports at once, and large enough for the two requests of a login and one of them again.
const KnockBurst = 4

// portBurst is larger: while a forger has used up what is for the source, all that a phone sends again costs it of what
// is for its port (RFC 3261 section 17.1.2.2: 0, 0.5, 1.5, 3.5 and 7.5 s after the first).
const portBurst = 8

// doorNet is how many times as many packets as a source may send knock at a banned network: at each IPv4 /24 and IPv6
// /48 of it.
const doorNet = 4

// Defaults of a Config.
const (
	DefaultTable       = "ringwall"
	DefaultMaxElements = 1 << 20
	DefaultIPv6Prefix  = 64
	DefaultMeterRate   = 200
	DefaultMeterBurst  = 100
	DefaultKnockPort   = 4
	DefaultKnockSource = 15
)

// maxName is the longest name of a table: NFT_NAME_MAXLEN is 256 with its NUL (linux/netfilter/nf_tables.h).
const maxName = 255

// Priority bounds: conntrack's defragmentation runs at -400 (include/uapi/linux/netfilter_ipv4.h), local services
// get packets after 300.
const (
	minPriority = -400
	maxPriority = 300
)

// Config describes the table. The zero value of a field that names a default takes it.
type Config struct {
	Table    string // name of the inet table, default "ringwall"
	Scope    Scope
	UDPPorts []uint16 // an empty list protects no UDP port in scope VoIP
	TCPPorts []uint16
	// ManagerPorts are those of TCPPorts that belong to Asterisk's manager interface; others are of no account.
	ManagerPorts []uint16
	// Priority of the chain at the prerouting hook. 0 is a priority of its own, so there is no default; -300 runs
	// before conntrack, which makes a ban end established flows too.
	Priority int
	Owner    Owner
	Meter    Meter
	Knock    Knock
	Tap      Tap
	// Lists are those that count.
	Lists []List
	// NetNS is a file descriptor of the network namespace to work in. 0 means that of the thread which dials: with
	// a Writer, any thread.
	NetNS int
	// MaxElements bounds each ban set, default 1048576; that of IPv4 /24 also ends at 65536. Elements count as
	// memory of the process that adds them (about 71 bytes an IPv4 one, 109 an IPv6 one), so its MemoryMax should
	// have room.
	MaxElements uint32
	// IPv6Prefix is the length to which IPv6 sources are trusted and metered, default 64.
	IPv6Prefix int

	noReject bool // the kernel cannot end connections, so what is cut is dropped
	noPaces  bool // it knows no limits of elements, so nobody is slow
	noTap    bool // it cannot copy packets
	// liveLists is the letter of the sets of lists that rules look into.
	liveLists byte
}

// withDefaults fills what is unset and refuses what the kernel would misread.
func (c Config) withDefaults() (Config, error) {
	if c.Table == "" {
		c.Table = DefaultTable
	}
	if c.MaxElements == 0 {
		c.MaxElements = DefaultMaxElements
	}
	if c.IPv6Prefix == 0 {
		c.IPv6Prefix = DefaultIPv6Prefix
	}
	// nft itself reads only these characters without quotes.
	if len(c.Table) > maxName || !isLetter(c.Table[0]) || strings.ContainsFunc(c.Table, notNameRune) {
		return c, fmt.Errorf("firewall: table name %q: a letter, then letters, digits, '_', '-' and '.', at most "+
			"255 in all",
			c.Table)
	}
	if c.Priority < minPriority || c.Priority > maxPriority {
		return c, fmt.Errorf("firewall: priority %d: from %d to %d; -300 is before connection tracking", c.Priority,
			minPriority, maxPriority)
	}
	if c.IPv6Prefix < 16 || c.IPv6Prefix > 128 {
		return c, fmt.Errorf("firewall: IPv6 prefix length %d: from 16 to 128", c.IPv6Prefix)
	}
	if c.Meter.Enabled && c.Meter.Rate == 0 {
		return c, errors.New("firewall: meter with a rate of 0 packets a second would drop every new phone: " +
			"give it a rate or turn it off")
	}
	if c.Knock.Port > 0 && c.Knock.Source == 0 {
		return c, errors.New("firewall: a knock of 0 packets a minute for a source lets nobody in: give it more, or " +
			"none to a port")
	}
	return c, nil
}

func isLetter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }

func notNameRune(r rune) bool {
	return r > 127 || !isLetter(byte(r)) && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
}

// clonePorts takes copies of what the caller may change.
func (c *Config) clonePorts() {
	c.UDPPorts, c.TCPPorts = slices.Clone(c.UDPPorts), slices.Clone(c.TCPPorts)
	c.ManagerPorts = slices.Clone(c.ManagerPorts)
	c.Tap.ExceptTCPPorts = slices.Clone(c.Tap.ExceptTCPPorts)
	c.Lists = slices.Clone(c.Lists)
}
