package api

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/ringwall/ringwall/pkg/lists"
	"github.com/ringwall/ringwall/pkg/printable"
)

// ListStatus is a list of attackers.
type ListStatus struct {
	Name    string     `json:"name"`
	Mode    string     `json:"mode"`
	Entries int        `json:"entries"` // of the last good copy
	Packets uint64     `json:"packets"` // of its sources: dropped, or counted where it is observed
	Fetched *time.Time `json:"fetched,omitempty"`
	Changed *time.Time `json:"changed,omitempty"`
	Tried   *time.Time `json:"tried,omitempty"`
	Next    *time.Time `json:"next,omitempty"`
	Error   string     `json:"error,omitempty"` // of the last try
	Try     string     `json:"try,omitempty"`
	Held    bool       `json:"held"`  // the last one that came changed by more than a list does
	Stale   bool       `json:"stale"` // it was not fetched for three times as long as it should have been
	Over    bool       `json:"over"`  // it was not fetched for so long that it no longer counts

	LeftOut   map[lists.Why]int `json:"left_out,omitempty"`
	Omissions []lists.Omission  `json:"omissions,omitempty"` // some of those
	Bad       int               `json:"bad_lines,omitempty"`
	BadSample string            `json:"bad_line,omitempty"`
	Credit    string            `json:"credit,omitempty"` // what its publisher wants to be shown
	// Customers are sources that logged in though the list names them, the latest last.
	Customers []netip.Addr `json:"customers,omitempty"`
}

// ListRefreshRequest fetches a list now.
type ListRefreshRequest struct {
	Name   string `json:"name"`
	Accept bool   `json:"accept"` // take it though it changed by more than a list does
	By     Peer   `json:"-"`
}

// refreshTimeout is for a list to be fetched: two minutes, and for APIBAN some batches.
const refreshTimeout = 5 * time.Minute

func (s *Server) serveListRefresh(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	var req ListRefreshRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	if req.Name == "" || len(req.Name) > 64 {
		return Invalid("ringwall lists", "there is no list %s", printable.Quote(req.Name))
	}
	req.By = peerFrom(r.Context()).withUserName()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(refreshTimeout + s.limits.write))
	ctx, cancel := context.WithTimeout(r.Context(), refreshTimeout)
	defer cancel()
	res, err := s.Backend.RefreshList(ctx, req)
	s.logChange(r, "refresh a list", err, req.By, "list", req.Name, "accept", req.Accept)
	if err != nil {
		return err
	}
	return writeJSON(w, res)
}

// RefreshList fetches a list, and returns once it is in force; By is left to the kernel.
func (c *Client) RefreshList(ctx context.Context, req ListRefreshRequest) (ListStatus, error) {
	patientClient := *c
	patientClient.Timeout = max(c.timeoutOrDefault(), refreshTimeout+defaultTimeout)
	return requestOne[ListStatus](ctx, &patientClient, http.MethodPost, "/v1/list-refresh", nil, req)
}
