package witness

import (
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/httphead"
	"github.com/ringwall/ringwall/pkg/iax"
	"github.com/ringwall/ringwall/pkg/sip"
)

const (
	millisecond = int64(time.Millisecond)
	second      = int64(time.Second)

	// transactionTTL is a little more than 64×T1, when timers B, F and H end a transaction (RFC 3261 section 17).
	transactionTTL = 35 * second
	// patience is how long an event may be late where nothing of what Asterisk did later has been told either.
	patience = 5 * second
	// clearFor is how long before a login nothing may have been lost, for its silence to mean something.
	clearFor = 2 * second

	defaultMoment = 500 * time.Millisecond
)

// Bounds: how much is remembered at most. A flood of forged requests fills what is not answered, and a forger's
// challenges are never used.
const (
	maxOpen          = 8 << 10  // transactions without an answer
	maxAnswered      = 8 << 10  // with one
	maxAttempts      = 8 << 10  // with one, and credentials
	maxDialogues     = 16 << 10 // of which one side was seen or told
	maxToldDialogues = 8 << 10  // of which both were
	maxAnswers       = 16 << 10 // to challenges, by what an event tells of them
	maxSent          = 32 << 10 // challenges
	maxUsed          = 16 << 10 // challenges that somebody answered
	maxSources       = 8 << 10
	maxKnownSources  = 4 << 10 // whose calls Asterisk takes, or of whom not all is seen
	maxAccounts      = 4 << 10 // that are tried with invented challenges
	maxLocals        = 64
	maxWaiting       = 8 << 10 // attempts that an event may tell yet
	maxFound         = 8 << 10 // findings that nobody fetched
	maxConnections   = 8 << 10 // of IAX2 calls, and of HTTP
	maxOpened        = 8 << 10 // TCP connections that Asterisk opened its side of
	maxProven        = 8 << 10 // those of which the other side acknowledged that
)

// Config is what a Witness is made with.
type Config struct {
	// Moment is how late an event may come after the answer that it belongs to; 0 is 500 ms.
	Moment time.Duration
	// Signature says whether a request has the mark of a scanner's program, and in which words of the list that is.
	Signature func(*sip.Message) (mark string, ok bool)
	// IAXPorts and HTTPPorts are Asterisk's own, where packets are not of SIP. Nil is 4569, and 8088.
	IAXPorts, HTTPPorts []uint16
}

// Sight is how a sensor saw a message.
type Sight struct {
	SeenBy           event.Sensor
	ToAsterisk       bool           // else it comes from there
	Asterisk, Remote netip.AddrPort // its own address, and that of the other side
	Transport        event.Transport

	isForgeable bool // a segment of TCP of which only the sender's word says where it comes from
}

// Finding is what no event told.
type Finding struct {
	PBX   string // whose events tell of that address of Asterisk's; empty where none did yet
	Event event.Event
}

// Match is what sensors know of an event.
type Match struct {
	// Seen says that a sensor saw the request.
	Seen bool
	// Repeated says that the attempt was found and told before its event came: it is not to be judged twice.
	Repeated bool
	// Copy says that the event is of a request that was sent again: same branch, CSeq and credentials.
	Copy bool
	// Sender is who sent the request, where the event names another address, which is not one behind NAT. It is proven
	// where it answered a challenge that was sent there.
	Sender         event.Address
	IsSenderProven bool
}

// Witness knows what sensors saw and what events told.
type Witness struct {
	moment    int64
	signature func(*sip.Message) (string, bool)
	iaxPorts  []uint16
	httpPorts []uint16

	keyedHash
	now int64 // never goes back

	transactions *cache[transaction]
	dialogues    *cache[dialogue]
	answers      *cache[answer]
	nonces       *cache[nonce]
	senders      *cache[sender]
	sources      *cache[source]
	accounts     *cache[uint8] // how many invented challenges each was tried with
	messages     *cache[struct{}]
	// streamAnswers are final answers over TCP that were judged: the kernel sends them again for minutes to whoever,
	// being banned, acknowledges nothing.
	streamAnswers *cache[struct{}]
	locals        *cache[local]
	lastLocal     *entry[local] // the one that was asked for last, at lastLocalAt
	lastLocalAt   netip.AddrPort
	connections   *cache[connection]
	handshakes    *cache[handshake]
	pbxs          map[string]*pbx

	// Attempts that wait for their event: all in the order of their times, and by what the event tells.
	oldest, youngest, free *attempt
	waiting                int
	decidedAt              int64
	attempts               map[uint64]*attempt

	found []Finding

	noncesSince int64 // what time, of Asterisk's clock, the oldest challenge has that is surely known; 0: none is
	sipEvents   bool  // chan_sip's were told
	message     sip.Message
	streams     *sip.Streams // of TCP
	seen        Sight        // of the segment that they are given
	seenAt      time.Time
	frame       iax.Frame
	http        httphead.Head
	unmasked    []byte // a message over WebSocket

	stats Stats
}

// Classes of transactions.
const (
	openTransaction uint8 = iota
	answeredTransaction
	attemptTransaction
)

// Classes of dialogues, challenges and sources.
const (
	oneSided uint8 = iota
	bothSided
)

const (
	sentNonce uint8 = iota
	usedNonce
)

const (
	anySource uint8 = iota
	knownSource
)

// resentFor is longer than the kernel sends a segment again that nobody acknowledges: 924.6 s by default (tcp_retries2
// of Documentation/networking/ip-sysctl.rst).
const resentFor = 20 * time.Minute

// New makes a Witness that has seen nothing.
func New(c Config) *Witness {
	w := &Witness{
		moment: int64(c.Moment), signature: c.Signature, iaxPorts: c.IAXPorts, httpPorts: c.HTTPPorts,
		keyedHash:     newKeyedHash(),
		transactions:  newCache[transaction](transactionTTL, maxOpen, maxAnswered, maxAttempts),
		dialogues:     newCache[dialogue](transactionTTL, maxDialogues, maxToldDialogues),
		answers:       newCache[answer](transactionTTL, maxAnswers),
		nonces:        newCache[nonce](0, maxSent, maxUsed),
		senders:       newCache[sender](transactionTTL, maxDialogues),
		sources:       newCache[source](int64(24*time.Hour), maxSources, maxKnownSources),
		accounts:      newCache[uint8](int64(time.Hour), maxAccounts),
		messages:      newCache[struct{}](transactionTTL, maxOpen),
		streamAnswers: newCache[struct{}](int64(resentFor), maxAnswered),
		locals:        newCache[local](0, maxLocals, maxLocals),
		connections:   newCache[connection](int64(time.Minute), maxConnections),
		handshakes:    newCache[handshake](0, maxOpened, maxProven),
		pbxs:          make(map[string]*pbx),
		attempts:      make(map[uint64]*attempt),
	}
	if w.moment == 0 {
		w.moment = int64(defaultMoment)
	}
	if w.iaxPorts == nil {
		w.iaxPorts = []uint16{4569}
	}
	if w.httpPorts == nil {
		w.httpPorts = []uint16{8088}
	}
	w.nonces.forget = w.forgetNonce
	w.locals.forget = func(*entry[local]) { w.lastLocal = nil }
	w.streams = sip.NewStreams(func(_ sip.Flow, head []byte) { w.head(w.seenAt, w.seen, head) })
	return w
}

func (w *Witness) advance(now time.Time) { w.now = max(w.now, now.UnixNano()) }

// local is an address on which Asterisk, or something else, listens.
type local struct {
	pbx        *pbx // whose events were matched with what was seen there; nil: none
	service    event.Service
	loginsTold bool // logins there are told by events
}

// pbx is an Asterisk whose events are told.
type pbx struct {
	name    string
	blind   bool
	blindAt int64 // when its events may have been late or lost, the last time
	passed  int64 // what was sent before that has been told, if anything tells of it
}

// wasBlind says whether events may be missing of what was sent since a time.
func (p *pbx) wasBlind(since int64) bool { return p.blind || p.blindAt >= since }

func (w *Witness) pbx(name string) *pbx {
	p := w.pbxs[name]
	if p == nil {
		p = &pbx{name: name, blindAt: -clearFor}
		w.pbxs[name] = p
	}
	return p
}

// anyBlind says whether events of any Asterisk may be missing.
func (w *Witness) anyBlind(since int64) bool {
	for _, p := range w.pbxs {
		if p.wasBlind(since) {
			return true
		}
	}
	return false
}

// Blind says whether the events of an Asterisk are late, or do not come at all.
func (w *Witness) Blind(now time.Time, name string, blind bool) {
	w.advance(now)
	p := w.pbx(name)
	if p.blind || blind {
		p.blindAt = w.now
	}
	if p.blind = blind; blind {
		w.noncesSince = 0
	}
}

// FramesLost says that events of an Asterisk did not arrive.
func (w *Witness) FramesLost(now time.Time, name string) {
	w.advance(now)
	w.pbx(name).blindAt = w.now
	w.noncesSince = 0
}

// PacketsLost says that a sensor did not see all.
func (w *Witness) PacketsLost(now time.Time) {
	w.advance(now)
	w.noncesSince = 0
	w.streams.Lost()
}

// localAt returns what is known of an address of Asterisk's.
func (w *Witness) localAt(a netip.AddrPort) *entry[local] {
	if w.lastLocal == nil || w.lastLocalAt != a {
		w.lastLocal, _ = w.locals.put(w.now, w.of(forLocal, w.addrPort(a), 0), 0)
		w.lastLocalAt = a
	}
	return w.lastLocal
}

// Sender returns who sent a Call-ID lately, where that was one only.
func (w *Witness) Sender(callID string) (event.Address, bool) {
	e := w.senders.get(w.now, w.of(forSender, w.text(callID), 0))
	if e == nil || e.value.several {
		return event.Address{}, false
	}
	return e.value.address, true
}

// sender is who sent a Call-ID, or an answer to a challenge.
type sender struct {
	address event.Address
	several bool
	told    bool // an event of chan_sip's told of it
}

func (w *Witness) noteSender(key uint64, s *Sight) {
	e, old := w.senders.put(w.now, key, 0)
	if old && e.value.address.AddrPort != s.Remote {
		e.value.several = true
	}
	e.value.address = event.Address{AddrPort: s.Remote, Transport: s.Transport}
}

// find keeps a finding until Due.
func (w *Witness) find(l *local, ev event.Event) {
	if len(w.found) >= maxFound {
		w.stats.Evicted++
		return
	}
	f := Finding{Event: ev}
	if l.pbx != nil {
		f.PBX = l.pbx.name
	}
	w.found = append(w.found, f)
	w.stats.Findings[ev.Type]++
}

// eventOf makes an event of what was seen.
func (w *Witness) eventOf(t event.Type, s *Sight, l *local) event.Event {
	service := event.PJSIP
	if l.service == event.SIP {
		service = event.SIP
	}
	return event.Event{
		Type: t, Service: service, Time: time.Unix(0, w.now).UTC(), SeenBy: s.SeenBy,
		Local:  event.Address{AddrPort: s.Asterisk, Transport: s.Transport},
		Remote: event.Address{AddrPort: s.Remote, Transport: s.transportProven()},
	}
}

// Due appends what is found, each once, and forgets it.
func (w *Witness) Due(now time.Time, out []Finding) []Finding {
	w.advance(now)
	w.decideWaiting()
	out = append(out, w.found...)
	clear(w.found)
	w.found = w.found[:0]
	return out
}

// Stats is what a Witness did, and what it holds.
type Stats struct {
	Requests, Answers, Events uint64
	Matched                   uint64 // events whose request was seen
	Findings                  [event.NumTypes]uint64
	Unproven                  uint64 // attempts where it is not known whether events tell of that address of Asterisk's
	Evicted                   uint64 // what was forgotten for want of room

	Transactions, Dialogues, Nonces, Sources, Waiting int
}

// Stats returns what the Witness did until now.
func (w *Witness) Stats() Stats {
	s := w.stats
	s.Evicted += w.transactions.evicted + w.dialogues.evicted + w.answers.evicted + w.sources.evicted +
		w.nonces.evicted + w.connections.evicted
	s.Transactions, s.Dialogues, s.Nonces = w.transactions.len(), w.dialogues.len(), w.nonces.len()
	s.Sources, s.Waiting = w.sources.len(), w.waiting
	return s
}
