package export

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Handler serves bans. Whoever asks has the token, as a bearer or as the password of any user.
type Handler struct {
	Format Format
	Token  string // "": everybody may read
	// Bans are those to be exported.
	Bans func(context.Context) ([]Ban, error)

	mu   sync.Mutex
	bans []Ban
	at   time.Time
}

// fresh is how long an answer may stand for another: many firewalls ask, and each walks over all bans.
const fresh = 2 * time.Second

// ServeHTTP implements http.Handler. ?format= asks for another format than the usual one.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.isAllowed(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="ringwall"`)
		http.Error(w, "the token is wrong or missing", http.StatusUnauthorized)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	format := h.Format
	if f := r.URL.Query().Get("format"); f != "" {
		if format = Format(f); !slices.Contains(Formats(), format) {
			http.Error(w, "formats: plain, json, nft, mikrotik", http.StatusBadRequest)
			return
		}
	}
	bans, err := h.latest(r.Context())
	if err != nil { // an empty list would let everybody in
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	text := Text(format, bans)
	sum := sha256.Sum256(text)
	tag := `"` + hex.EncodeToString(sum[:16]) + `"`
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	for t := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if strings.TrimPrefix(strings.TrimSpace(t), "W/") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if format == JSON {
		w.Header().Set("Content-Type", "application/json")
	}
	_, _ = w.Write(text)
}

// isAllowed compares the token in a time that says nothing of it.
func (h *Handler) isAllowed(r *http.Request) bool {
	if h.Token == "" {
		return true
	}
	token, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !isBearer {
		_, token, _ = r.BasicAuth()
	}
	a, b := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(h.Token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

func (h *Handler) latest(ctx context.Context) ([]Ban, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at.IsZero() || time.Since(h.at) > fresh {
		bans, err := h.Bans(ctx)
		if err != nil {
			return nil, err
		}
		h.bans, h.at = bans, time.Now()
	}
	return h.bans, nil
}
