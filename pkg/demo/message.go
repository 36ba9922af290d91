package demo

import (
	"bytes"
	"crypto/md5" // RFC 2617's digest, which is what phones speak
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// maxPacket is the longest datagram that anybody here sends or reads, in bytes.
const maxPacket = 2048

// realm is what Asterisk says where nothing is configured.
const realm = "asterisk"

// request is a REGISTER as far as this PBX cares.
type request struct {
	user   string // of From, as it stands there: %-encoded
	callID string
	seq    uint32
	auth   *credentials // nil: none
}

// credentials is an Authorization header (RFC 2617 section 3.2.2, without qop).
type credentials struct {
	user, nonce, response string
}

// digestResponse is what proves to know a password: the response to a nonce. Method and URI are the same in all
// requests here.
func digestResponse(user, password, nonce string) string {
	h := func(parts ...string) string {
		sum := md5.Sum([]byte(strings.Join(parts, ":")))
		return hex.EncodeToString(sum[:])
	}
	return h(h(user, realm, password), nonce, h("REGISTER", "sip:pbx.example"))
}

// packet encodes the request; via is the address of the sender.
func (r request) packet(via string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "REGISTER sip:pbx.example SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%x.%d\r\n", via,
		md5.Sum([]byte(r.callID)), r.seq)
	fmt.Fprintf(&b, "Max-Forwards: 70\r\nFrom: <sip:%s@pbx.example>;tag=1\r\nTo: <sip:%s@pbx.example>\r\n", r.user,
		r.user)
	fmt.Fprintf(&b, "Call-ID: %s\r\nCSeq: %d REGISTER\r\nContact: <sip:%s@%s>\r\n", r.callID, r.seq, r.user, via)
	if a := r.auth; a != nil {
		fmt.Fprintf(&b, "Authorization: Digest username=%q, realm=%q, nonce=%q, uri=\"sip:pbx.example\", "+
			"response=%q\r\n",
			a.user, realm, a.nonce, a.response)
	}
	b.WriteString("Expires: 300\r\nContent-Length: 0\r\n\r\n")
	return b.Bytes()
}

// parseRequest reads a REGISTER. What is none is not answered.
func parseRequest(packet []byte) (r request, ok bool) {
	start, headers, ok := splitMessage(packet)
	if !ok || !strings.HasPrefix(start, "REGISTER ") {
		return r, false
	}
	_, from, found := strings.Cut(headers["from"], "<sip:")
	r.user, _, ok = strings.Cut(from, "@")
	if !found || !ok {
		return r, false
	}
	seq, _, _ := strings.Cut(headers["cseq"], " ")
	n, err := strconv.ParseUint(seq, 10, 32)
	if r.seq, r.callID = uint32(n), headers["call-id"]; err != nil || r.callID == "" {
		return r, false
	}
	if params, ok := strings.CutPrefix(headers["authorization"], "Digest "); ok {
		r.auth = &credentials{parameterValue(params, "username"), parameterValue(params, "nonce"),
			parameterValue(params, "response")}
	}
	return r, true
}

// reportedAccount is the From user as Asterisk reports it: %-decoded, whatever that makes of it, and cut to 36 bytes.
func (r request) reportedAccount() string {
	name, err := url.PathUnescape(r.user)
	if err != nil {
		name = r.user
	}
	return name[:min(len(name), 36)]
}

// replyPacket encodes the answer: a 401 with a nonce, or, where nonce is "", a 200.
func (r request) replyPacket(nonce string) []byte {
	var b bytes.Buffer
	status := "200 OK"
	if nonce != "" {
		status = "401 Unauthorized"
	}
	fmt.Fprintf(&b, "SIP/2.0 %s\r\nCall-ID: %s\r\nCSeq: %d REGISTER\r\n", status, r.callID, r.seq)
	if nonce != "" {
		fmt.Fprintf(&b, "WWW-Authenticate: Digest realm=%q, nonce=%q, algorithm=MD5\r\n", realm, nonce)
	}
	b.WriteString("Content-Length: 0\r\n\r\n")
	return b.Bytes()
}

// sipAnswer is what a phone reads of a reply.
type sipAnswer struct {
	status int
	seq    uint32
	nonce  string
}

func parseAnswer(packet []byte) (a sipAnswer, ok bool) {
	start, headers, ok := splitMessage(packet)
	rest, found := strings.CutPrefix(start, "SIP/2.0 ")
	if !ok || !found {
		return a, false
	}
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	seq, _, _ := strings.Cut(headers["cseq"], " ")
	n, err2 := strconv.ParseUint(seq, 10, 32)
	return sipAnswer{status, uint32(n), parameterValue(headers["www-authenticate"], "nonce")}, err == nil && err2 == nil
}

// splitMessage splits a packet; of a header that comes twice the first counts.
func splitMessage(packet []byte) (start string, headers map[string]string, ok bool) {
	head, _, ok := strings.Cut(string(packet), "\r\n\r\n")
	start, rest, _ := strings.Cut(head, "\r\n")
	headers = make(map[string]string)
	for line := range strings.SplitSeq(rest, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if name = strings.ToLower(name); headers[name] == "" {
			headers[name] = strings.TrimSpace(value)
		}
	}
	return start, headers, ok
}

// parameterValue is the value of name="value".
func parameterValue(list, name string) string {
	for part := range strings.SplitSeq(list, ",") {
		if key, value, ok := strings.Cut(strings.TrimSpace(part), "="); ok && key == name {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}
