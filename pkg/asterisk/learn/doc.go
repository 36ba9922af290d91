// Package learn asks an Asterisk what it knows about its own customers: trunks, registration servers, registered
// contacts.
//
// # What is learned for whom
//
// An address that is protected cannot be banned, so the question is who could put it there. [Knowledge] keeps two lists
// apart:
//
//   - Prefixes is what the administrator of the PBX wrote down: matches of identify sections, servers and proxies of
//     outbound registrations, fixed contacts of AORs, peers with a fixed address. No SIP message can add to it.
//   - Contacts is what a registration vouches for. Whoever holds one account's password can register any address there,
//     as many as max_contacts allows. If that made an address immune, one stolen password would let an attacker guess
//     all the others undisturbed, so it must not: a contact is worth what a SuccessfulAuth of that account from that
//     address is worth, which is probation, and nothing where such trust has been lost. Then a registration gives an
//     attacker no more than the password already gave.
//
// # Which address of a contact
//
// The host of its URI is the packet's source only with rewrite_contact=yes; else it is what the phone claims, and so is
// via_addr in any case. That both agree proves nothing: an attacker writes both, while a healthy phone behind NAT
// differs in them. So a contact counts if its endpoint is known to have rewrite_contact=yes, and not if it is known to
// have no. Where Asterisk does not let us see the endpoint (write = reporting), a public address counts, a private one
// (RFC 1918, RFC 6598, RFC 4193) does not: it is most likely the inside of a customer's NAT. Host names in contacts are
// never looked up, contacts with a Path are reached through a proxy and are not counted, and one endpoint has at most
// [Config].MaxPerEndpoint addresses. Contacts expire by Asterisk's clock, which is asked for where it seems to differ.
//
// # Hostile replies
//
// AMI escapes nothing. A field counts only if its item has it exactly once, under an event name that is the item's
// first line. Prefixes comes only from items that hold nothing but configuration and carry this session's unguessable
// ActionID. IAXpeers leaves that out of its items, so they count only if there are exactly as many as its end says.
// Passwords in replies are not looked at, and no error or log line of this package holds any value of a reply but names
// of objects, addresses and Asterisk's message to a refused action.
package learn
