package iax

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Frame is a full frame of type IAX, one that signals. Its slices are views of the bytes that were parsed, and hold
// what a peer chose; those of text end at the first NUL, as they do for Asterisk.
type Frame struct {
	// Source is the sender's number of the call, and Destination the receiver's, 0 in the first frame of a call. Both
	// are 15 bits. The two ends call one call by these numbers, at their addresses.
	Source, Destination uint16
	// Retransmitted says that the frame was sent before.
	Retransmitted bool
	Timestamp     uint32 // milliseconds since the call's first frame
	// OutSeq is the frame's number within the call, and InSeq the number that is expected of the other end.
	OutSeq, InSeq uint8
	Subclass      Subclass

	Username []byte
	// CalledNumber is what a New dials.
	CalledNumber []byte
	// Challenge is what Asterisk wants answered.
	Challenge []byte
	// Response answers a challenge: an MD5 digest in hex, an RSA signature, or the password itself; nil where there
	// is no answer. It can be compared; no log and no file is a place for it.
	Response []byte
	// CallToken is a token that the receiver gave to this address, or that is asked for where HasCallToken is true
	// and it is empty.
	CallToken    []byte
	HasCallToken bool
	// Cause and CauseCode say why Asterisk refuses: "Registration Refused" and 29, "No authority found" and 50.
	Cause     []byte
	CauseCode uint8
}

// Subclass is what a frame of type IAX means.
type Subclass uint8

// The subclasses of Asterisk's enum iax_frame_subclass that have to do with logins, and those that end a call.
const (
	New       Subclass = 1
	Ack       Subclass = 4
	Hangup    Subclass = 5
	Reject    Subclass = 6
	Accept    Subclass = 7
	AuthReq   Subclass = 8
	AuthRep   Subclass = 9
	Inval     Subclass = 10
	RegReq    Subclass = 13
	RegAuth   Subclass = 14
	RegAck    Subclass = 15
	RegRej    Subclass = 16
	RegRel    Subclass = 17
	CallToken Subclass = 40
)

var subclassNames = [...]string{
	New: "NEW", Ack: "ACK", Hangup: "HANGUP", Reject: "REJECT", Accept: "ACCEPT", AuthReq: "AUTHREQ",
	AuthRep: "AUTHREP", Inval: "INVAL", RegReq: "REGREQ", RegAuth: "REGAUTH", RegAck: "REGACK", RegRej: "REGREJ",
	RegRel: "REGREL", CallToken: "CALLTOKEN",
}

// String returns the name of RFC 5456, section 8.4, or "other".
func (s Subclass) String() string {
	if int(s) >= len(subclassNames) || subclassNames[s] == "" {
		return "other"
	}
	return subclassNames[s]
}

// What a datagram can be instead of a frame that signals. Neither has a byte of it in it.
var (
	// ErrNotSignalling is a mini or meta frame, or a full frame of voice, digits, text and the like.
	ErrNotSignalling = errors.New("iax: not a full frame of type IAX")
	// ErrMalformed is a frame that Asterisk throws away: an information element goes beyond its end.
	ErrMalformed = errors.New("iax: an information element is cut short")
)

const (
	headSize = 12 // struct ast_iax2_full_hdr

	flagFull     = 0x8000 // of the source's call number: not a mini frame
	flagRetrans  = 0x8000 // of the destination's call number
	flagPower    = 0x80   // of the subclass: it is a power of two
	typeIAX      = 6      // AST_FRAME_IAX
	elementHead  = 2      // type, length of what follows
	longestShift = 7      // 1<<7 is beyond all subclasses
	shiftMask    = 0x3f   // IAX_MAX_SHIFT
	noSubclass   = 0      // of no frame
)

// The information elements that are read (RFC 5456, section 8.6).
const (
	elementCalledNumber = 1
	elementUsername     = 6
	elementPassword     = 7
	elementChallenge    = 15
	elementMD5Result    = 16
	elementRSAResult    = 17
	elementCause        = 22
	elementCauseCode    = 42
	elementCallToken    = 54
)

// Parse reads one datagram. It overwrites *f, and allocates nothing. Beside ErrMalformed *f has what stood before the
// element that is cut short: in a copy of a packet's head that is all there is.
//
// As for Asterisk, the last of two elements of one type counts (iax_parse_ies).
func Parse(b []byte, f *Frame) error {
	*f = Frame{}
	if len(b) < headSize {
		return ErrNotSignalling
	}
	source, destination := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if source&flagFull == 0 || b[10] != typeIAX {
		return ErrNotSignalling
	}
	f.Source, f.Destination = source&^flagFull, destination&^flagRetrans
	f.Retransmitted = destination&flagRetrans != 0
	f.Timestamp = binary.BigEndian.Uint32(b[4:])
	f.OutSeq, f.InSeq = b[8], b[9]
	f.Subclass = subclassOf(b[11])
	for rest := b[headSize:]; len(rest) > 0; {
		if len(rest) < elementHead || int(rest[1]) > len(rest)-elementHead {
			return ErrMalformed
		}
		kind, size := rest[0], elementHead+int(rest[1])
		data := rest[elementHead:size:size]
		rest = rest[size:]
		switch kind {
		case elementCalledNumber:
			f.CalledNumber = textOf(data)
		case elementUsername:
			f.Username = textOf(data)
		case elementPassword, elementMD5Result, elementRSAResult:
			f.Response = textOf(data)
		case elementChallenge:
			f.Challenge = textOf(data)
		case elementCause:
			f.Cause = textOf(data)
		case elementCauseCode:
			if len(data) == 1 {
				f.CauseCode = data[0]
			}
		case elementCallToken:
			f.HasCallToken = true
			if len(data) > 0 {
				f.CallToken = data
			}
		}
	}
	return nil
}

// subclassOf is uncompress_subclass of chan_iax2.c: 0x80 is New, too.
func subclassOf(b byte) Subclass {
	if b&flagPower == 0 {
		return Subclass(b)
	}
	shift := b & shiftMask
	if b == 0xff || shift >= longestShift {
		return noSubclass
	}
	return 1 << shift
}

// textOf is a text as C has it.
func textOf(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i:i]
	}
	return b
}

// FromCaller says whether the frame is one by which somebody logs in, or asks to.
func (f *Frame) FromCaller() bool {
	switch f.Subclass {
	case New, AuthRep, RegReq, RegRel:
		return true
	}
	return false
}

// Causes of refusals, from Asterisk's include/asterisk/causes.h (ITU-T Q.850).
const (
	CauseNoRoute             = 3  // "No such context/extension": the number does not exist, whoever calls
	CauseFacilityRejected    = 29 // "Registration Refused"
	CauseFacilityUnavailable = 50 // "No authority found": FACILITY_NOT_SUBSCRIBED
)

// RefusesLogin says whether the frame tells somebody that his credentials, or the want of them, are not good enough. A
// Reject has other reasons, too.
func (f *Frame) RefusesLogin() bool {
	switch f.Subclass {
	case RegRej:
		return true
	case Reject:
		return f.CauseCode == CauseFacilityUnavailable || f.CauseCode == CauseFacilityRejected
	}
	return false
}

// Accepts says whether the frame tells somebody that he is logged in, or that his call is taken.
func (f *Frame) Accepts() bool { return f.Subclass == RegAck || f.Subclass == Accept }
