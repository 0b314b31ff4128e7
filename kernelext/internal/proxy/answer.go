package proxy

import (
	"encoding/json"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/proxy/cell"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/history"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/trace"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/wire"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/zmtp"
)

type object = map[string]any

// answer replies to a request, within the busy and the idle that front ends wait for.
func (k *kernel) answer(s *zmtp.RouterSocket, m *wire.Message, content any) {
	k.busy(m)
	k.reply(s, m, content)
	k.idle(m)
}

func (k *kernel) reply(s *zmtp.RouterSocket, m *wire.Message, content any) {
	k.front.reply(s, m, wire.New(k.session, strings.TrimSuffix(m.Header.Type, "_request")+"_reply", m, content))
}

func (k *kernel) busy(m *wire.Message) {
	k.out.message(m, "status", object{"execution_state": "busy"})
}

func (k *kernel) idle(m *wire.Message) {
	k.out.message(m, "status", object{"execution_state": "idle"})
	// Front ends show the last status there was, whatever it belongs to: while a cell runs that has to be busy.
	k.mu.Lock()
	r := k.running
	k.mu.Unlock()
	if r != nil && r.request.Header.ID != m.Header.ID {
		k.busy(r.request)
	}
}

// refuse answers a request that can't be dealt with.
func (k *kernel) refuse(s *zmtp.RouterSocket, m *wire.Message, name, why string) {
	k.answer(s, m, withStatus("error", trace.Plain(name, why)))
}

// withStatus is the content of a reply that says how it went.
func withStatus(status string, fields any) object {
	content := object{}
	if fields != nil {
		data, err := json.Marshal(fields)
		if err == nil {
			err = json.Unmarshal(data, &content)
		}
		if err != nil {
			panic("proxy: " + err.Error()) // a mistake in this program
		}
	}
	content["status"] = status
	return content
}

// onShell takes the messages of the shell channel.
func (k *kernel) onShell(m *wire.Message) {
	s := k.front.shell
	switch m.Header.Type {
	case "execute_request":
		k.enqueue(m)
	case "complete_request", "inspect_request":
		go k.ask(k.ctx, m)
	case "shutdown_request":
		k.shutdown(s, m)
	case "comm_open", "comm_msg", "comm_close":
		k.onComm(m)
	default:
		k.onQuestion(s, m)
	}
}

// onControl takes the messages of the control channel, which don't wait for cells.
func (k *kernel) onControl(m *wire.Message) {
	switch m.Header.Type {
	case "interrupt_request":
		k.interrupt()
		k.answer(k.front.control, m, withStatus("ok", nil))
	case "shutdown_request":
		k.shutdown(k.front.control, m)
	default:
		k.onQuestion(k.front.control, m)
	}
}

// onQuestion answers what needs no GoNB.
func (k *kernel) onQuestion(s *zmtp.RouterSocket, m *wire.Message) {
	switch m.Header.Type {
	case "kernel_info_request":
		k.waitForListener()
		k.answer(s, m, k.info())
	case "is_complete_request":
		var q struct{ Code string }
		if err := m.Decode(&q); err != nil {
			k.refuse(s, m, trace.Kernel, err.Error())
			return
		}
		content := object{}
		status, indent := cell.IsComplete(q.Code)
		if status == cell.Incomplete {
			content["indent"] = indent
		}
		k.answer(s, m, withStatus(string(status), content))
	case "history_request":
		var q history.Query
		if err := m.Decode(&q); err != nil {
			k.refuse(s, m, trace.Kernel, err.Error())
			return
		}
		found, err := k.history.Find(q)
		if err != nil {
			k.refuse(s, m, trace.Kernel, err.Error())
			return
		}
		entries := make([]any, 0, len(found))
		for _, e := range found {
			switch {
			case !q.Output:
				entries = append(entries, []any{e.Session, e.Line, e.Source})
			case e.Output == "":
				entries = append(entries, []any{e.Session, e.Line, []any{e.Source, nil}})
			default:
				entries = append(entries, []any{e.Session, e.Line, []any{e.Source, e.Output}})
			}
		}
		k.answer(s, m, withStatus("ok", object{"history": entries}))
	case "comm_info_request":
		var q struct {
			Target string `json:"target_name"`
		}
		if err := m.Decode(&q); err != nil {
			k.refuse(s, m, trace.Kernel, err.Error())
			return
		}
		k.answer(s, m, withStatus("ok", object{"comms": k.comms.list(q.Target)}))
	default:
		if strings.HasSuffix(m.Header.Type, "_request") {
			k.refuse(s, m, "NotSupported", "this kernel does not know "+m.Header.Type)
			return
		}
		k.log.say("a message of a type that kernels don't get was refused")
	}
}

// waitForListener gives a front end that has just started the time to subscribe: it may run a cell right after the answer, and would miss what that prints.
func (k *kernel) waitForListener() {
	for range 100 {
		if k.front.iopub.Subscribed() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (k *kernel) info() object {
	return withStatus("ok", object{
		"protocol_version": wire.Version, "implementation": "espalier", "implementation_version": k.Version,
		"banner": "Espalier " + k.Version + ", a Go kernel on GoNB. %help says what it can do besides running Go.",
		"language_info": object{
			"name": "go", "version": strings.TrimPrefix(runtime.Version(), "go"), "mimetype": "text/x-go", "file_extension": ".go",
			"pygments_lexer": "go", "codemirror_mode": "text/x-go", "nbconvert_exporter": "",
		},
		"debugger": false, "supported_features": []string{},
		"help_links": []object{
			{"text": "Go", "url": "https://go.dev/doc/"}, {"text": "Go packages", "url": "https://pkg.go.dev/"},
			{"text": "GoNB", "url": "https://github.com/janpfeifer/gonb"}, {"text": "GoMLX", "url": "https://github.com/gomlx/gomlx"},
		},
	})
}

// shutdown ends the kernel. The reply is sent when GoNB is gone, so that a front end that restarts us does not find its traces.
func (k *kernel) shutdown(s *zmtp.RouterSocket, m *wire.Message) {
	var q struct{ Restart bool }
	if err := m.Decode(&q); err != nil {
		k.refuse(s, m, trace.Kernel, err.Error())
		return
	}
	go func() {
		k.queue.close()
		k.backend.close()
		content := withStatus("ok", object{"restart": q.Restart})
		k.busy(m)
		k.out.message(m, "shutdown_reply", content)
		k.reply(s, m, content)
		k.idle(m)
		k.front.iopub.Flush(time.Second)
		k.stop(errShutdown)
	}()
}

// comms remembers the comms that front ends have opened.
type comms struct {
	mu   sync.Mutex
	open map[string]string // comm_id -> target_name
}

// gonbTarget is the one target that GoNB has, for its widgets.
const gonbTarget = "gonb_comm"

const maxComms = 1024

func (c *comms) list(target string) object {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := object{}
	for id, name := range c.open {
		if target == "" || target == name {
			list[id] = object{"target_name": name}
		}
	}
	return list
}

func (c *comms) set(id, target string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[string]string{}
	}
	if target == "" {
		delete(c.open, id)
		return true
	}
	if len(c.open) >= maxComms {
		return false
	}
	c.open[id] = target
	return true
}

// onComm takes the messages of widgets.
func (k *kernel) onComm(m *wire.Message) {
	content, err := m.Object()
	id, _ := content["comm_id"].(string)
	if err != nil || id == "" {
		k.log.say("a comm message without comm_id was refused")
		return
	}
	k.busy(m)
	defer k.idle(m)
	switch m.Header.Type {
	case "comm_open":
		target, _ := content["target_name"].(string)
		if target != gonbTarget || !k.comms.set(id, target) {
			k.out.message(m, "comm_close", object{"comm_id": id, "data": object{}}) // as the protocol wants it
			return
		}
		k.backend.tell(m)
	case "comm_msg":
		k.backend.tell(m)
	case "comm_close":
		k.comms.set(id, "") // GoNB has no handler for it
	}
}

// onStdin takes the answers of the reader to a program's question.
func (k *kernel) onStdin(m *wire.Message) {
	var content struct{ Value *string }
	if m.Header.Type != "input_reply" || m.Decode(&content) != nil || content.Value == nil {
		k.log.say("an answer without a value was refused")
		return
	}
	k.backend.input(m)
}
