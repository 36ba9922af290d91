package main

import (
	"encoding/binary"
	"errors"
	"os"
)

// cpuLatencyDevice is where a program says how long a CPU may take to wake up (PM QoS,
// Documentation/power/pm_qos_interface.rst).
const cpuLatencyDevice = "/dev/cpu_dma_latency"

// keepCPUsAwake keeps all CPUs from halting until the function that it returns is called. The CPU of a virtual
// machine that has nothing to do is given away by its host, and comes back milliseconds after it is wanted where the
// host has other work: every program waits for that alike, and none can do anything about it.
func keepCPUsAwake() (func() error, error) {
	f, err := os.OpenFile(cpuLatencyDevice, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(binary.NativeEndian.AppendUint32(nil, 0)); err != nil { // as long as it is open
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}
