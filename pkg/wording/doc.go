// Package wording says for a person what the engine knows, in the same words on a terminal and on the status page.
package wording
