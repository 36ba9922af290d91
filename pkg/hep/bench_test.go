package hep

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// benchmarkRead has packets of 900 bytes read, some at a time so that none is lost.
func benchmarkRead(b *testing.B, l *Listener, read func(n int)) {
	conn, err := net.Dial("udp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	payload := make([]byte, 700)
	copy(payload, request)
	packet := without([]uint16{chunkPayload}, with(chunkPayload, payload...))
	b.ReportAllocs()
	for left := b.N; left > 0; {
		n := min(left, 500)
		left -= n
		b.StopTimer()
		for range n {
			if _, err := conn.Write(packet); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		read(n)
	}
}

// What a packet costs the daemon, from the kernel to the decoded packet, …
func BenchmarkListener(b *testing.B) {
	l, err := Open(Config{Listen: loopback, Password: "secret"})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	goOn, read := make(chan int), make(chan bool)
	ended := make(chan error)
	left := 0
	go func() {
		left = <-goOn
		ended <- l.Run(func(*Packet) {
			if left--; left == 0 {
				read <- true
				left = <-goOn
			}
		})
	}()
	benchmarkRead(b, l, func(n int) { goOn <- n; <-read })
	_ = l.Close()
	close(goOn)
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}

// … beside what the kernel alone takes for it, as recvfrom(2) without an address does.
func BenchmarkRecvfrom(b *testing.B) {
	l, err := Open(Config{Listen: loopback})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	file, err := l.conn.File()
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	fd, buffer := int(file.Fd()), make([]byte, longestPacket)
	benchmarkRead(b, l, func(n int) {
		for range n {
			if _, err := unix.Read(fd, buffer); err != nil { // unix.Recvfrom allocates an address
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	packet := encode(ordinary()...)
	var p Packet
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(packet, &p); err != nil {
			b.Fatal(err)
		}
	}
}
