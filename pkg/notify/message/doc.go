// Package message is what a notification says, and the templates that bring it into the form that a service wants. It
// knows nothing of engines and targets, so that the configuration can check a template before anything is sent.
package message
