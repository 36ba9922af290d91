package learn

import (
	"strings"
)

// A question is an action that this package uses: what it is for, and the least class in write= that allows it
// (main/db.c, res/res_pjsip/pjsip_configuration.c, location.c, res_pjsip_outbound_registration.c, chan_iax2.c,
// chan_sip.c: the privileges that ListCommands shows).
type question struct{ action, class, purpose string }

func allQuestions() []question {
	return []question{
		{"PJSIPShowEndpoints", "system", "trunks and what endpoints do with contacts"},
		{"PJSIPShowEndpoint", "system", "trunks and what endpoints do with contacts"},
		{"Command", "command", "trunks, where PJSIPShowEndpoints is denied; not advised, since this class runs any " +
			"console command"},
		{"DBGetTree", "reporting", "registered contacts"},
		{"PJSIPShowContacts", "system", "registered contacts"},
		{"PJSIPShowRegistrationsOutbound", "reporting", "servers that Asterisk registers with"},
		{"IAXpeers", "reporting", "peers of chan_iax2"},
		{"SIPpeers", "reporting", "peers of chan_sip"},
	}
}

// isUnknownAction recognises Asterisk's answer to an action of a module that is not loaded (main/manager.c,
// process_message()).
func isUnknownAction(message string) bool {
	return strings.HasPrefix(message, "Invalid/unknown command")
}

// isEmptyAnswer recognises an error that says that there is nothing to tell: "No endpoints found", "No Contacts found",
// and "Unable to retrieve endpoint 6001" of one that was deleted meanwhile.
func isEmptyAnswer(message string) bool {
	m := strings.ToLower(strings.TrimSpace(message))
	return strings.HasPrefix(m, "no ") && strings.HasSuffix(m, " found") ||
		strings.HasPrefix(m, "unable to retrieve endpoint")
}
