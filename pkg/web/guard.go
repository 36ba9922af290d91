package web

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// contentSecurityPolicy lets the browser take nothing from elsewhere, run nothing that is written into the page, and
// show the page in no frame (Content Security Policy Level 3).
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src " +
	"'self'; form-action 'self'; " +
	"base-uri 'none'; frame-ancestors 'none'"

// guardRequests sets the security headers of every answer, and refuses requests to a host name that is not this
// machine's.
func (p *Page) guardRequests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Embedder-Policy", "require-corp")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Cache-Control", "no-store")
		if p.loopback && !isLoopbackName(r.Host) {
			// A name of somebody else that stands for 127.0.0.1: the browser would let his scripts read the page.
			http.Error(w, "Ringwall: this page answers by the name localhost or by its address alone, such as "+
				"http://"+p.Address.String()+"/",
				http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLoopbackName says whether a Host header names loopback, whichever port it gives: a tunnel may have another one.
func isLoopbackName(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// isSameOrigin says whether a request comes from this very page, as the browser tells it. Loopback is trustworthy to
// browsers, so they send Sec-Fetch-Site (W3C Fetch Metadata); older ones send Origin alone. Under no-referrer Origin is
// "null".
func isSameOrigin(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin"
	}
	origin, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && origin.Scheme == "http" && origin.Host != "" && origin.Host == r.Host
}
