package proxy

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/proxy/wire"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/zmtp"
)

// The kernel's other side in these tests is a fake of GoNB: this test binary, started again. A cell's source is a script for it, a command a line.
const fakeVariable = "ESPALIER_TEST_FAKE_GONB"

func TestMain(m *testing.M) {
	if os.Getenv(fakeVariable) != "" && slices.Contains(os.Args, "--kernel") { // workers of a fuzz test inherit the variable
		fakeGonb(os.Args[len(os.Args)-2])
		return
	}
	os.Exit(m.Run())
}

type fake struct {
	key   wire.Key
	shell *zmtp.RouterSocket
	iopub *zmtp.PubSocket
	stdin *zmtp.RouterSocket
	input chan string
	count int // of cells, as GoNB counts; it stands for @ in scripts
	mu    sync.Mutex
	deaf  time.Time // until then it takes nobody for a subscriber
}

// late is the value of fakeVariable for a fake that learns of subscribers late.
const late = "late"

// fakeGonb serves the connection of a file until it is told to end. Like GoNB it ends at what it can't read: none of that must reach it.
func fakeGonb(file string) {
	c, err := wire.ReadConnection(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	f := &fake{key: wire.NewKey(c.Key), input: make(chan string, 1)}
	if os.Getenv(fakeVariable) == late {
		f.deaf = time.Now().Add(300 * time.Millisecond)
	}
	requests := make(chan *wire.Message, 1000)
	listen := func(port int, handle func(*wire.Message)) *zmtp.RouterSocket {
		network, address := c.Address(port)
		s, err := zmtp.ListenRouter(network, address, zmtp.Limits{}, func(id []byte, frames [][]byte) {
			m, err := wire.Parse(f.key, frames)
			if err != nil {
				fmt.Fprintln(os.Stderr, "fake GoNB:", err)
				os.Exit(7)
			}
			m.Identities = [][]byte{id}
			handle(m)
		}, func(err error) { os.Exit(7) })
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return s
	}
	network, address := c.Address(c.IOPub)
	if f.iopub, err = zmtp.ListenPub(network, address, nil); err != nil {
		os.Exit(1)
	}
	f.stdin = listen(c.Stdin, func(m *wire.Message) {
		var content struct{ Value string }
		if m.Decode(&content) != nil {
			os.Exit(7)
		}
		f.input <- content.Value
	})
	f.shell = listen(c.Shell, func(m *wire.Message) {
		switch m.Header.Type {
		case "shutdown_request":
			os.Exit(0)
		case "execute_request", "comm_open", "comm_msg", "kernel_info_request":
			requests <- m
		default:
			fmt.Fprintln(os.Stderr, "fake GoNB: unexpected", m.Header.Type)
			os.Exit(7)
		}
	})
	signal.Ignore(os.Interrupt)
	for m := range requests {
		if m.Header.Type == "kernel_info_request" {
			f.publish(m, "status", object{"execution_state": "busy"})
			f.send(f.shell, m, "kernel_info_reply", object{})
			f.publish(m, "status", object{"execution_state": "idle"})
			continue
		}
		if m.Header.Type != "execute_request" {
			f.publish(m, "comm_msg", object{"comm_id": "x", "data": object{"got": m.Header.Type}})
			continue
		}
		f.publish(m, "status", object{"execution_state": "busy"})
		content := f.run(m)
		f.send(f.shell, m, "execute_reply", content)
		f.publish(m, "status", object{"execution_state": "idle"})
	}
}

func (f *fake) publish(m *wire.Message, kind string, content any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Now().Before(f.deaf) {
		return
	}
	f.iopub.Send(wire.New("fake", kind, m, content).Frames(f.key)...)
}

func (f *fake) send(s *zmtp.RouterSocket, m *wire.Message, kind string, content any) {
	s.Send(m.Identities[0], wire.New("fake", kind, m, content).Frames(f.key)...)
}

func (f *fake) stream(m *wire.Message, name, text string) {
	f.publish(m, "stream", object{"name": name, "text": text})
}

// run runs the script of a cell.
func (f *fake) run(m *wire.Message) object {
	var q struct{ Code string }
	if err := m.Decode(&q); err != nil {
		os.Exit(7)
	}
	f.count++
	fail := func(value string) object {
		return object{"status": "error", "ename": "ERROR", "evalue": value, "traceback": []string{value}}
	}
	script := bufio.NewScanner(strings.NewReader(q.Code))
	for script.Scan() {
		line := strings.TrimPrefix(strings.TrimSuffix(strings.TrimPrefix(script.Text(), "func main() { "), "}"), "!")
		name, argument, _ := strings.Cut(strings.TrimSuffix(line, ")"), "(")
		argument, err := strconv.Unquote(strings.ReplaceAll(argument, "@", strconv.Itoa(f.count)))
		if err != nil {
			continue
		}
		switch name {
		case "out":
			f.stream(m, "stdout", argument)
		case "err":
			f.stream(m, "stderr", argument)
		case "flood":
			n, _ := strconv.Atoi(argument)
			for i := range n {
				f.stream(m, "stdout", fmt.Sprintln("line", i))
			}
		case "display":
			f.publish(m, "display_data", object{"data": object{"text/plain": argument}, "metadata": object{}, "transient": object{"display_id": "d"}})
		case "update":
			n, _ := strconv.Atoi(argument)
			for i := range n {
				f.publish(m, "update_display_data", object{"data": object{"text/plain": strconv.Itoa(i)}, "metadata": object{}, "transient": object{"display_id": "d"}})
			}
		case "result":
			text, _ := json.Marshal(object{"data": object{"text/plain": argument}})
			if err := os.WriteFile(os.Getenv(resultEnv), text, 0o600); err != nil {
				return fail(err.Error())
			}
		case "exit":
			f.stream(m, "stderr", argument+"\n")
			return fail(argument)
		case "fails":
			f.stream(m, "stderr", argument+"\n") // as a shell command that fails, for which GoNB says ok
		case "ask":
			time.Sleep(100 * time.Millisecond) // the kernel may still be connecting, and a ROUTER drops what is for nobody
			f.send(f.stdin, m, "input_request", object{"prompt": argument, "password": false})
			f.stream(m, "stdout", "got "+<-f.input)
		case "sleep":
			d, _ := time.ParseDuration(argument)
			time.Sleep(d)
		case "program":
			// A child that ends when it is interrupted, as cells' programs and shell commands do.
			child := fakeChild(argument)
			if err := child.Run(); err != nil {
				f.stream(m, "stderr", "^C\n"+err.Error()+"\n")
				return fail(err.Error())
			}
		case "die":
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		case "compiler":
			var answer object
			if json.Unmarshal([]byte(argument), &answer) != nil {
				os.Exit(7)
			}
			return answer
		}
	}
	return object{"status": "ok", "user_expressions": object{}}
}
