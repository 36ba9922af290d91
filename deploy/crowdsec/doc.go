// Package crowdsec has a real CrowdSec LAPI told of bans, and lists of attackers read from it.
package crowdsec
