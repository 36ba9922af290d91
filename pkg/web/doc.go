// Package web is the status page: what Ringwall does, for a person with a browser, live.
package web
