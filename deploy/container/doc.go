// Package container tests the examples for Docker and Kubernetes as far as that goes without either.
package container
