// Package crowdsec tells a CrowdSec LAPI of bans, as a machine that it knows, and reads its allow lists. What the LAPI
// has is compared with what it should have: one that was away is told what it missed, and nothing queues up meanwhile.
package crowdsec
