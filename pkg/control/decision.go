package control

import (
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// Decision is an [ban.Decision] as the client reads it: the same keys, with addresses as text. Account holds bytes
// that an attacker chose.
type Decision struct {
	Time      time.Time  `json:"time"`
	Action    ban.Action `json:"action"`
	Source    string     `json:"source"`
	Prefix    string     `json:"prefix"`
	Reason    ban.Reason `json:"reason"`
	Points    float64    `json:"points"`
	Score     float64    `json:"score"`
	Account   string     `json:"account"`
	Service   string     `json:"service"`
	Transport string     `json:"transport"`
	Proven    bool       `json:"proven"`
	Duration  float64    `json:"duration_seconds"`
	PBX       string     `json:"pbx"`
	Detail    string     `json:"detail,omitempty"`
	Lost      int        `json:"lost,omitempty"` // see the action [Lost]
	ban.Place            // of Source, else of Prefix, as the geo files say now
}
