package proxy

import (
	"errors"
	"fmt"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/proxy/wire"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/zmtp"
)

// front is the five sockets that front ends connect to.
type front struct {
	key                   wire.Key
	shell, control, stdin *zmtp.RouterSocket
	iopub                 *zmtp.PubSocket
	heartbeat             *zmtp.EchoSocket
}

// listenFront opens the sockets. The functions get messages that were checked.
func listenFront(c wire.Connection, log *logger, shell, control, stdin func(*wire.Message)) (*front, error) {
	f := &front{key: wire.NewKey(c.Key)}
	router := func(port int, receive func(*wire.Message)) (*zmtp.RouterSocket, error) {
		network, address := c.Address(port)
		return zmtp.ListenRouter(network, address, zmtp.Limits{}, func(identity []byte, frames [][]byte) {
			m, err := wire.Parse(f.key, frames)
			if err != nil {
				log.say("a message was refused: " + err.Error())
				return
			}
			m.Identities = append([][]byte{identity}, m.Identities...)
			receive(m)
		}, func(err error) { log.say("a message was refused: " + err.Error()) })
	}
	var errs []error
	try := func(err error) { errs = append(errs, err) }
	var err error
	f.shell, err = router(c.Shell, shell)
	try(err)
	f.control, err = router(c.Control, control)
	try(err)
	f.stdin, err = router(c.Stdin, stdin)
	try(err)
	network, address := c.Address(c.IOPub)
	f.iopub, err = zmtp.ListenPub(network, address, func(topic []byte) [][]byte {
		welcome := wire.New(wire.NewID(), "iopub_welcome", nil, map[string]string{"subscription": string(topic)})
		return welcome.Frames(f.key, topic)
	})
	try(err)
	network, address = c.Address(c.Heartbeat)
	f.heartbeat, err = zmtp.ListenEcho(network, address)
	try(err)
	if err := errors.Join(errs...); err != nil {
		f.close()
		return nil, fmt.Errorf("a socket that the connection file names can't be opened (another program may have it: start the kernel anew, and its front end names others): %w", err)
	}
	return f, nil
}

func (f *front) close() {
	if f.iopub != nil {
		f.iopub.Flush(2 * time.Second)
		_ = f.iopub.Close()
	}
	for _, s := range []*zmtp.RouterSocket{f.shell, f.control, f.stdin} {
		if s != nil {
			_ = s.Close() // the process ends
		}
	}
	if f.heartbeat != nil {
		_ = f.heartbeat.Close()
	}
}

// publish sends a message to all that listen.
func (f *front) publish(m *wire.Message) {
	f.iopub.Send(m.Frames(f.key, []byte("kernel."+m.Header.Type))...)
}

// reply sends a message to the front end that a request came from.
func (f *front) reply(s *zmtp.RouterSocket, request, m *wire.Message) {
	if len(request.Identities) == 0 {
		return
	}
	s.Send(request.Identities[0], m.Frames(f.key, request.Identities[1:]...)...)
}
