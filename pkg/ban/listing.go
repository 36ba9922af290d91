package ban

import "net/netip"

// Listing is a list of attackers that names an address.
type Listing struct {
	List     string       `json:"list"`
	Prefix   netip.Prefix `json:"prefix"`   // the entry
	Enforced bool         `json:"enforced"` // else its packets are only counted
	LeftOut  bool         `json:"left_out"` // since the entry touches somebody who is allowed or trusted
}
