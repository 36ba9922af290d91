package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/printable"
)

// ForgetRequest forgets what a node of the fleet has said so far.
type ForgetRequest struct {
	Node string `json:"node"`
	By   Peer   `json:"-"`
}

// ForgetResult says what followed from it.
type ForgetResult struct {
	Node     string `json:"node"`
	Prefixes int    `json:"prefixes"` // about which it had said something
	InForce  int    `json:"in_force"` // of those, banned or trusted here on its word until now
	Note     string `json:"note,omitempty"`
}

func (s *Server) serveForget(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	var req ForgetRequest
	if err := readBody(r, &req); err != nil {
		return err
	}
	if !record.IsName(req.Node) {
		return Invalid("ringwall fleet status", "%s is not a name for a node", printable.Quote(req.Node))
	}
	req.By = peerFrom(r.Context()).withUserName()
	res, err := s.Backend.ForgetNode(r.Context(), req)
	s.logChange(r, "forget a node", err, req.By, "node", req.Node, "prefixes", res.Prefixes)
	if err != nil {
		return err
	}
	return writeJSON(w, res)
}

// ForgetNode forgets what a node of the fleet has said so far; By is left to the kernel.
func (c *Client) ForgetNode(ctx context.Context, req ForgetRequest) (ForgetResult, error) {
	return requestOne[ForgetResult](ctx, c, http.MethodPost, "/v1/fleet-forget", nil, req)
}
