package httphead

import (
	"encoding/binary"
	"errors"
)

// Frame is the head of one frame of WebSocket (RFC 6455, section 5.2), with as much of its payload as there is.
type Frame struct {
	// Final says that the message ends with this frame. SIP comes in one frame (RFC 7118, section 5); but Asterisk puts
	// together what somebody cut (res_http_websocket.c), and no more than the first frame can be read here.
	Final  bool
	Opcode Opcode
	// Length is that of the payload, as the frame says.
	Length uint64
	// Size is how many bytes of those that were parsed are the frame's; the next frame begins behind them.
	Size int
	// Truncated says that the frame goes on behind the bytes that were parsed.
	Truncated bool

	payload []byte
	masked  bool
	mask    [4]byte
}

// Opcode is what a frame holds.
type Opcode uint8

// The opcodes.
const (
	Continuation Opcode = 0
	Text         Opcode = 1
	Binary       Opcode = 2
	CloseFrame   Opcode = 8
	Ping         Opcode = 9
	Pong         Opcode = 10
)

// ErrNotFrame says that the bytes do not begin with a frame: there are too few, or they may be the middle of one.
var ErrNotFrame = errors.New("httphead: no frame of WebSocket")

// ParseFrame reads bytes that begin with a frame. It overwrites *f, and allocates nothing.
func ParseFrame(b []byte, f *Frame) error {
	*f = Frame{}
	if len(b) < 2 || b[0]&0x70 != 0 { // reserved bits are of extensions, of which Asterisk has none
		return ErrNotFrame
	}
	final, opcode := b[0]&0x80 != 0, Opcode(b[0]&0x0f)
	switch opcode {
	case Continuation, Text, Binary, CloseFrame, Ping, Pong:
	default:
		return ErrNotFrame
	}
	masked, length, rest := b[1]&0x80 != 0, uint64(b[1]&0x7f), b[2:]
	if opcode >= CloseFrame && (!final || length > 125) { // section 5.5
		return ErrNotFrame
	}
	switch {
	case length == 126 && len(rest) >= 2:
		length, rest = uint64(binary.BigEndian.Uint16(rest)), rest[2:]
	case length == 127 && len(rest) >= 8:
		length, rest = binary.BigEndian.Uint64(rest), rest[8:]
	case length >= 126:
		return ErrNotFrame
	}
	var mask [4]byte
	if masked {
		if len(rest) < len(mask) {
			return ErrNotFrame
		}
		mask, rest = [4]byte(rest), rest[len(mask):]
	}
	*f = Frame{Final: final, Opcode: opcode, Length: length, masked: masked, mask: mask, payload: rest}
	if length < uint64(len(rest)) {
		f.payload = rest[:length]
	}
	f.Truncated = length > uint64(len(rest))
	f.Size = len(b) - len(rest) + len(f.payload)
	return nil
}

// Payload copies the payload to dst, unmasked (section 5.3), as far as it is there and has room, and returns that
// part of dst. What a client sends is masked, what Asterisk sends is not.
func (f *Frame) Payload(dst []byte) []byte {
	n := copy(dst, f.payload)
	if f.masked {
		for i := range dst[:n] {
			dst[i] ^= f.mask[i&3]
		}
	}
	return dst[:n]
}
