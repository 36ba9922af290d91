// Package config is the YAML file: its keys, their defaults, and the errors that say where a value is wrong.
package config
