package fail2ban

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/pkg/printable"
)

// mails are those that a jail sends of each ban.
type mails struct {
	action string
	from   string   // "" where the jail names nobody who could be one
	to     []string // never empty
}

// mailOf is what an action of fail2ban's that sends mails says about them (action.d/sendmail*.conf, mail*.conf).
func mailOf(a jailAction) (m mails, ok bool) {
	if !isMailAction(a.name) {
		return m, false
	}
	const most = 10
	m.action = a.name
	for word := range strings.FieldsFuncSeq(a.options["dest"], func(r rune) bool { return r == ',' || r == ' ' }) {
		if to := mailAddress(word); to != "" && len(m.to) < most && !slices.Contains(m.to, to) {
			m.to = append(m.to, to)
		}
	}
	if len(m.to) == 0 {
		m.to = []string{"root@localhost"} // as fail2ban does where nobody is named
	}
	if strings.Contains(a.options["sender"], "@") { // there may be <fq-hostname> behind it
		m.from = mailAddress(a.options["sender"])
	}
	return m, true
}

func isMailAction(name string) bool {
	return name == "sendmail" || name == "mail" || strings.HasPrefix(name, "sendmail-") ||
		strings.HasPrefix(name, "mail-")
}

// mailAddress is a word if it is an address of mail. One without a domain is somebody of this machine.
func mailAddress(word string) string {
	if !regexp.MustCompile(`^[A-Za-z0-9._%+-]{1,64}(@[A-Za-z0-9][A-Za-z0-9.-]{0,180})?$`).MatchString(word) {
		return ""
	}
	if !strings.Contains(word, "@") {
		word += "@localhost"
	}
	return word
}

// writeMails suggests that Ringwall tells those whom the jails about telephony told.
func (im *Import) writeMails(b *strings.Builder) {
	var jails, actions, to []string
	from := ""
	for _, j := range im.Jails {
		if !j.VoIP || len(j.mails.to) == 0 {
			continue
		}
		jails, actions = append(jails, j.Name), append(actions, j.mails.action)
		if from == "" {
			from = j.mails.from
		}
		for _, address := range j.mails.to {
			if !slices.Contains(to, address) {
				to = append(to, address)
			}
		}
	}
	if len(jails) == 0 {
		return
	}
	if from == "" {
		_, domain, _ := strings.Cut(to[0], "@")
		from = "ringwall@" + domain
	}
	slices.Sort(actions)
	writeComment(b, "", "Those who got mails of jail "+quoteList(jails)+" ("+
		printable.String(strings.Join(slices.Compact(actions), ", "))+"), by the mail server of this machine, as "+
		"fail2ban's went. Of a flood one mail counts the rest.")
	fmt.Fprintf(b, "notify:\n  - smtp:\n      host: 127.0.0.1\n      port: 25\n      tls: never\n      from: %q\n   "+
		"   to:\n", from)
	for _, address := range to {
		fmt.Fprintf(b, "        - %q\n", address)
	}
}
