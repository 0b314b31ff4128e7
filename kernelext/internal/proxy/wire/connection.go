package wire

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
)

// Connection is what a connection file says.
type Connection struct {
	Transport   string `json:"transport"` // "tcp" or "ipc"
	IP          string `json:"ip"`        // for ipc the beginning of the sockets' paths
	Shell       int    `json:"shell_port"`
	Control     int    `json:"control_port"`
	Stdin       int    `json:"stdin_port"`
	IOPub       int    `json:"iopub_port"`
	Heartbeat   int    `json:"hb_port"`
	Key         string `json:"key"`
	Scheme      string `json:"signature_scheme"`
	KernelName  string `json:"kernel_name,omitempty"`
	SessionFile string `json:"jupyter_session,omitempty"` // path of the notebook, where the server says it
}

const maxConnectionFile = 1 << 20

// ReadConnection reads a connection file.
func ReadConnection(path string) (Connection, error) {
	c := Connection{Transport: "tcp", Scheme: "hmac-sha256"}
	info, err := os.Stat(path)
	if err != nil {
		return c, err
	}
	if info.Size() > maxConnectionFile {
		return c, fmt.Errorf("%s has %d bytes, which no connection file has", path, info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("%s is no connection file: %w", path, err)
	}
	if c.Key != "" && c.Scheme != "hmac-sha256" {
		return c, fmt.Errorf("%s asks for the signature scheme %q; expected hmac-sha256, the only one that Jupyter uses", path, c.Scheme)
	}
	if c.Transport != "tcp" && c.Transport != "ipc" {
		return c, fmt.Errorf("%s asks for the transport %q; expected tcp or ipc", path, c.Transport)
	}
	return c, nil
}

// Address returns network and address of a socket.
func (c Connection) Address(port int) (network, address string) {
	if c.Transport == "ipc" {
		return "unix", c.IP + "-" + strconv.Itoa(port)
	}
	if c.IP == "*" {
		return "tcp", ":" + strconv.Itoa(port)
	}
	return "tcp", net.JoinHostPort(c.IP, strconv.Itoa(port))
}
