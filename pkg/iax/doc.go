// Package iax reads the frames of IAX2 by which somebody logs in, and by which Asterisk refuses him. Asterisk's
// chan_iax2 writes no security event for either.
//
// The format is that of RFC 5456 and of Asterisk's channels/iax2 (include/iax2.h, parser.c): what Asterisk would
// understand is understood, so that nobody passes by a form that only Asterisk takes.
//
// A guess at a registration looks like this, whether or not the account exists (chan_iax2 invents a challenge); a
// call is the same with [New], [AuthReq], [AuthRep], and [Reject] or [Accept]:
//
//	RegReq              ──▶  the account
//	        ◀── CallToken    a token for this address
//	RegReq              ──▶  the account, the token
//	          ◀── RegAuth    a challenge
//	RegReq              ──▶  the account, the answer to the challenge
//	           ◀── RegRej    or RegAck
//
// Who sends a token back has received it at his address: it is a hash of the address and a secret of Asterisk's, so
// that such a frame which Asterisk did not answer with another CallToken is not forged, although it came by UDP.
// Neither is an answer to a challenge that was sent to the same address.
package iax
