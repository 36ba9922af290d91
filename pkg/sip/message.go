package sip

import (
	"bytes"
	"errors"
	"fmt"
)

// Bounds of what is looked at. Views have no bound of their own but these: they are parts of the caller's bytes.
const (
	MaxHead        = 64 << 10 // of one head; a datagram is no longer
	MaxHeaders     = 512      // of one head
	MaxCredentials = 8        // of one request, from Authorization and Proxy-Authorization
	MaxChallenges  = 4        // of one answer, from WWW-Authenticate and Proxy-Authenticate
)

var (
	// ErrEmpty is returned for bytes that keep a way through NAT open and say nothing: line ends (RFC 5626 3.5.1), zero
	// bytes, a STUN message (RFC 5626 3.5.2).
	ErrEmpty = errors.New("nothing but a keepalive")
	// ErrNotSIP is returned where neither the first line nor any header is of SIP.
	ErrNotSIP = errors.New("not SIP")
)

// A Message is the head of a request or an answer. Parse fills one again and again; all of its bytes are views into
// what was parsed, and valid as long as that is. Where a header is there twice, pjproject's choice counts: the last
// From, To, Call-ID and CSeq, the first Via.
type Message struct {
	Method     []byte // as it was written; nil in an answer and where the first line is broken
	Status     int    // of an answer; 0 in a request
	RequestURI URI

	From, To Address
	Contact  Address // the first

	CallID     []byte // with spaces at its end, too, which are a part of it for Asterisk
	CSeq       uint32
	CSeqMethod []byte
	// First are others where there is more than one. Asterisk's events are about the last, its answer repeats the first
	// (FIND_HDR in pjsip_endpt_create_response; a later pjproject, only the first Call-ID).
	First struct {
		CallID     []byte
		CSeq       uint32
		CSeqMethod []byte
	}

	Branch    []byte // of the topmost Via
	ViaSentBy []byte // of the topmost Via: host and port as they were written
	ViaCount  int

	UserAgent     []byte // of an answer Server, or User-Agent where that came first
	ContentLength int    // -1 without

	Malformed Malformed
	// Truncated says that the empty line at the end of the head was not there. A datagram may end so and be complete
	// for Asterisk.
	Truncated bool
	HeadBytes int // from the first byte that was given to after the empty line

	credentials     [MaxCredentials]Credentials
	challenges      [MaxChallenges]Challenge
	credentialCount int
	challengeCount  int
}

// IsRequest tells a request from an answer.
func (m *Message) IsRequest() bool { return m.Status == 0 }

// MethodIs compares the method as pjproject does, letter case aside (RFC 3261 7.1 would not).
func (m *Message) MethodIs(method string) bool { return equalFold(m.Method, method) }

// ComparableBranch is the branch, or nil where Asterisk may write it otherwise in its answer: it escapes some bytes.
func (m *Message) ComparableBranch() []byte {
	if bytes.ContainsAny(m.Branch, "%[]:\"") {
		return nil
	}
	return m.Branch
}

// Credentials are those of Authorization and Proxy-Authorization (RFC 3261 22.2, 22.3), in their order.
func (m *Message) Credentials() []Credentials { return m.credentials[:m.credentialCount] }

// Challenges are those of WWW-Authenticate and Proxy-Authenticate, in their order.
func (m *Message) Challenges() []Challenge { return m.challenges[:m.challengeCount] }

// Format writes what a log may hold: no verb shows credentials, nor the rest of what a stranger wrote.
func (m Message) Format(f fmt.State, _ rune) {
	if m.Status != 0 {
		fmt.Fprintf(f, "SIP answer %d", m.Status)
		return
	}
	fmt.Fprintf(f, "SIP request %.20q", m.Method)
}

func (m *Message) reset() {
	clear(m.credentials[:m.credentialCount])
	clear(m.challenges[:m.challengeCount])
	m.credentialCount, m.challengeCount = 0, 0
	m.Method, m.Status, m.RequestURI = nil, 0, URI{}
	m.From, m.To, m.Contact = Address{}, Address{}, Address{}
	m.CallID, m.CSeq, m.CSeqMethod = nil, 0, nil
	m.First.CallID, m.First.CSeq, m.First.CSeqMethod = nil, 0, nil
	m.Branch, m.ViaSentBy, m.ViaCount = nil, nil, 0
	m.UserAgent, m.ContentLength = nil, -1
	m.Malformed, m.Truncated, m.HeadBytes = 0, true, 0
}

// A URI is a SIP, SIPS or tel URI (RFC 3261 19.1, RFC 3966). Of others only Raw and Scheme are known.
type URI struct {
	Raw    []byte
	Scheme []byte
	User   []byte // without password; the number of tel
	Host   []byte // without brackets
	Port   uint16 // 0 without
}

// An Address is the value of From, To or Contact (RFC 3261 20.10).
type Address struct {
	URI
	Display []byte // without quotes; what is escaped in them stays so
	Tag     []byte
}

// Malformed is a set of faults. Those of MalformedRefused are faults for which pjproject refuses the message, before
// any module of Asterisk sees it.
type Malformed uint32

const (
	BadStartLine       Malformed = 1 << iota
	NoVia                        // of the five headers that pjproject wants (RFC 3261 8.1.1 wants Max-Forwards, too)
	NoFrom                       //
	NoTo                         //
	NoCallID                     // or an empty one
	NoCSeq                       // or one without number or method
	BadHeader                    // a line without a colon or a name, or a value that pjproject refuses
	BadAddress                   // a Request-URI, From, To or Contact with a byte that pjproject refuses there
	CallIDControl                // a byte below 32, DEL or one above 127 in the Call-ID: no phone sends that
	CallIDNotWord                // another byte that RFC 3261 has not in word, which some phones send
	CSeqMismatch                 // the method of CSeq is not that of the request (RFC 3261 8.1.1.5)
	RepeatedHeader               // a second From, To, Call-ID or CSeq (RFC 3261 7.3.1)
	JoinedHeaders                // a header behind & on the line of another: pjproject's own syntax, for URIs
	LoneCR                       // a CR without LF, which ends a line for pjproject
	ZeroByte                     // in the head
	TooManyHeaders               // more than MaxHeaders; the rest was not read
	TooManyCredentials           // more than MaxCredentials or MaxChallenges; the rest was not read
)

// MalformedRefused are the faults that Asterisk never hears of, nor anybody who asks only Asterisk. The five headers
// are not among the faults of a message that is Truncated.
const MalformedRefused = BadStartLine | NoVia | NoFrom | NoTo | NoCallID | NoCSeq | BadHeader | BadAddress

// MalformedHostile are faults of messages that Asterisk hears and no phone sends: each hides something from whoever
// reads SIP another way.
const MalformedHostile = CallIDControl | RepeatedHeader | JoinedHeaders | LoneCR | ZeroByte | TooManyHeaders |
	TooManyCredentials

// Has says whether all of these faults are there.
func (f Malformed) Has(faults Malformed) bool { return f&faults == faults }

// Any says whether one of these faults is there.
func (f Malformed) Any(faults Malformed) bool { return f&faults != 0 }

var malformedNames = [...]string{
	"bad start line", "no Via", "no From", "no To", "no Call-ID", "no CSeq", "bad header", "bad address",
	"control byte in Call-ID", "Call-ID is no word", "CSeq of another method", "repeated header", "joined headers",
	"CR without LF", "zero byte", "too many headers", "too many credentials",
}

// String names the faults.
func (f Malformed) String() string {
	text := ""
	for i, name := range malformedNames {
		if f&(1<<i) != 0 {
			if text != "" {
				text += ", "
			}
			text += name
		}
	}
	return text
}
