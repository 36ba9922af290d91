package ban

// Place is where an address is registered, as far as anybody knows; the zero value is nowhere. Its texts are foreign:
// quote them before they reach a terminal or a log.
type Place struct {
	Country string `json:"country,omitempty"` // ISO 3166-1 alpha-2, two capital letters
	ASN     uint32 `json:"asn,omitempty"`     // number of the autonomous system that announces it
	ASName  string `json:"as_name,omitempty"` // who runs that system
}
