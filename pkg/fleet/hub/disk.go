package hub

import (
	"errors"
	"os"

	"github.com/nats-io/nats-server/v2/server"
)

// roomProbe is how much must fit on the disk, in bytes, before the server is to write again.
const roomProbe = 1 << 20

// watchDisk has the server write again once it can. After one write that failed, as to a disk that is full, its stream
// takes nothing more, and no answer says why; it is read anew when somebody has made room. Until then the nodes keep
// what they have to say.
func (h *Hub) watchDisk() {
	status := h.server.Healthz(&server.HealthzOptions{})
	if status.Error == "" {
		h.diskError = ""
		return
	}
	err := h.tryDisk()
	if err == nil {
		err = h.restartJetStream()
	}
	if err == nil {
		h.log.Info("the hub keeps again what nodes say")
		return
	}
	if text := err.Error(); text != h.diskError {
		h.diskError = text
		h.log.Error("the hub cannot keep what nodes say: they go on alone, and tell it once its disk has room again",
			"folder", h.options.StoreDir, "why", status.Error, "err", err)
	}
}

// tryDisk says whether something can be written where the server writes.
func (h *Hub) tryDisk() error {
	f, err := os.CreateTemp(h.options.StoreDir, "room-")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, roomProbe))
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

func (h *Hub) restartJetStream() error {
	if err := h.server.ShutdownJetStream(); err != nil {
		return err
	}
	return h.server.EnableJetStream(&server.JetStreamConfig{StoreDir: h.options.StoreDir, Strict: true,
		CompressOK: true, MaxMemory: h.options.JetStreamMaxMemory, MaxStore: h.options.JetStreamMaxStore})
}
