package message

// Summary is the Action of a message that stands for several decisions.
const Summary = "summary"

// Message is one notification. Every text in it is printable: what came from the wire has gone through
// [github.com/ringwall/ringwall/pkg/printable]. The keys of its JSON form are those of a decision line, and some more.
type Message struct {
	ID        string  `json:"id"`    // the same for each attempt to deliver it
	Time      string  `json:"time"`  // RFC 3339
	Host      string  `json:"host"`  // this machine's name
	Title     string  `json:"title"` // a few words, without a value that an attacker chose
	Text      string  `json:"text"`  // a sentence or two, without a value that an attacker chose
	Action    string  `json:"action"`
	Source    string  `json:"source"` // an address, or ""
	Prefix    string  `json:"prefix"` // what was banned: an address with /32 or /128, a network, or ""
	Reason    string  `json:"reason"`
	Points    float64 `json:"points"`
	Score     float64 `json:"score"`
	Account   string  `json:"account"` // chosen by the attacker, with escapes such as \x1b for what is not visible
	Service   string  `json:"service"`
	Transport string  `json:"transport"`
	Proven    bool    `json:"proven"`
	SeenBy    string  `json:"seen_by,omitempty"` // the sensor that told, where it was no event of Asterisk's
	Scope     string  `json:"scope,omitempty"`   // of a ban or a cut: flow, service, source or network
	Closes    string  `json:"closes,omitempty"`  // of a ban: all, udp, manager or sip
	Flow      string  `json:"flow,omitempty"`    // that was cut: "tcp 192.0.2.1:5060"
	Seconds   float64 `json:"duration_seconds"`
	Duration  string  `json:"duration"` // as in 1h30m, or ""
	PBX       string  `json:"pbx"`
	Detail    string  `json:"detail"`
	Country   string  `json:"country,omitempty"` // where Source is registered, as two letters, or ""
	ASN       uint32  `json:"asn,omitempty"`     // the network that announces it, or 0
	ASName    string  `json:"as_name,omitempty"` // who runs that network

	// Only in a summary.
	Count    int      `json:"count,omitempty"`    // decisions
	Actions  []Tally  `json:"actions,omitempty"`  // how many of each action
	Prefixes []string `json:"prefixes,omitempty"` // of the first few of them
}

// Tally is how many decisions of one action a summary stands for.
type Tally struct {
	Action string `json:"action"`
	Count  int    `json:"count"`
}

// sampleMessages are messages that a template must get right: each action, empty and full, with what breaks JSON that
// was put together from pieces.
func sampleMessages(actions []string) []Message {
	list := []Message{{}, {Action: Summary}}
	hostile := []string{`"`, `\`, `\"`, `","x":"`, "'", "`", "</script>", "}}{{", ":", ",", "1", "\u2028"}
	for i, action := range actions {
		for k := range hostile {
			h := hostile[(i+k)%len(hostile)]
			list = append(list, Message{
				ID: "00000000-1", Time: "2006-01-02T15:04:05Z", Host: h, Title: h, Text: h, Action: action,
				Source: "192.0.2.1", Prefix: "192.0.2.1/32", Reason: h, Points: 2.5, Score: 10, Account: h, Service: h,
				Transport: h, Proven: k%2 == 0, Seconds: 5400, Duration: "1h30m", PBX: h, Detail: h,
				Country: h, ASN: 64496, ASName: h,
			})
		}
	}
	for _, h := range hostile {
		list = append(list, Message{
			ID: "00000000-2", Time: "2006-01-02T15:04:05Z", Host: h, Title: h, Text: h, Action: Summary, Count: 1234,
			Actions: []Tally{{"ban", 1230}, {"breach", 4}}, Prefixes: []string{"192.0.2.1/32", "2001:db8::/64"},
		})
	}
	return list
}
