// Package lab runs a real Asterisk in network namespaces of its own, and the phones and attackers around it, for tests.
//
// [Start] gives a test a private copy: five namespaces on a bridge, nothing of which the host's network sees, and one
// Asterisk in the first. Namespaces and mounts have no names and belong to the test's process, so the kernel takes
// them away even if it is killed. The test must be root; else it is skipped.
//
//	l := lab.Start(t, lab.Options{Version: 22})
//	phone := l.Agent(t, lab.Phone, lab.AgentOptions{})
//	code, err := phone.Register("6001", lab.Password("6001")) // 200, nil
//
// The trees come from the script beside this package: "lab help" tells more.
package lab
