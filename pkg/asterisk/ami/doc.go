// Package ami holds one lasting session with one Asterisk over the Asterisk Manager Interface: it dials, logs in, keeps
// the line alive, and hands every event frame on in the order in which it came off the socket.
//
// # What a frame may be
//
// Nothing that Asterisk sends over AMI is escaped, so a SIP packet can put CRLF, and with CRLFCRLF whole frames, into
// the stream. This package splits and routes, it does not judge: every frame that does not answer an action of this
// session reaches [Config.OnFrames] byte for byte, also one that is no event at all. Answers are recognised by an
// ActionID of 128 random bits in the place where Asterisk writes it, which nobody who can only inject bytes knows.
//
// Messages are taken apart only where they answer an action. A look-up by name takes the first of several headers,
// which is what an injected line steers, so events are never read that way: see pkg/asterisk/event.
//
// # Why no client library
//
// github.com/staskobzar/goami2 (v1.7.7), the most used one, gives up a message when its channel has been full for 10
// ms, which loses security events without a trace; it reads the login reply with a single Read, so a reply in two
// segments, or one that arrives together with the first event, fails or loses that event; it knows neither the MD5
// login nor Ping; and its lines have no bound.
//
// # Slow readers
//
// Asterisk disconnects a reader that does not take an event within writetimeout (manager.conf, 100 ms by default) and
// does not deliver later what happened in between. One goroutine therefore does nothing but drain the socket into a
// queue with a bound in bytes. When the bound is hit, the frames that matter least are dropped and counted, and the
// socket is read on.
package ami
