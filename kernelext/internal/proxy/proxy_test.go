package proxy

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/kernelext/internal/proxy/trace"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/wire"
	"github.com/espalier-ml/espalier/kernelext/internal/proxy/zmtp"
	"github.com/google/go-cmp/cmp"
)

func TestCellThatWorks(t *testing.T) {
	c := startKernel(t)
	o := c.execute("out(\"hello\\n\")\nerr(\"careful\\n\")\nresult(\"42\")")
	if diff := cmp.Diff([]string{"execute_input", "stream", "stream", "execute_result"}, o.kinds); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if o.reply["status"] != "ok" || o.reply["execution_count"] != 1.0 || o.text("stdout") != "hello\n" || o.text("stderr") != "careful\n" {
		t.Errorf("reply %v, output %v", o.reply, o.all)
	}
	want := object{"execution_count": 1.0, "data": object{"text/plain": "42"}, "metadata": object{}}
	if diff := cmp.Diff(want, o.all[3]); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if again := c.execute("out(\"x\")"); again.reply["execution_count"] != 2.0 || slices.Contains(again.kinds, "execute_result") {
		t.Errorf("the next cell: %v %v, want the count 2 and no result", again.reply, again.kinds)
	}
}

// Each failure is one error, of its kind, with one line for its value.
func TestFailures(t *testing.T) {
	c := startKernel(t)
	for _, test := range []struct {
		name, code   string
		kind, value  string
		stdout       string
		stderr       string
		traceContain string
	}{
		{"exit", "err(\"bad sparsity\\n\")\nexit(\"exit status 3\")", trace.Exit, "exit status 3: bad sparsity", "", "bad sparsity\n", ""},
		{"panic", "out(\"before\\n\")\nerr(\"panic: boom\\n\\ngoroutine 1 [running]:\\nmain.main()\\n\\t \\x1b[7m[[ Cell [@] Line 2 ]]\\x1b[0m /tmp/gonb_1/main.go:9 +0x1d\\n\")\nexit(\"exit status 2\")",
			trace.Panic, "boom", "before\n", "", "line 2"},
		{"panic in pieces", "err(\"panic: \")\nerr(\"boom\\n\")\nerr(\"\\ngoroutine 1 [running]:\\n\")\nexit(\"exit status 2\")", trace.Panic, "boom", "", "", ""},
		{"deadlock", "err(\"fatal error: all goroutines are asleep - deadlock!\\n\")\nexit(\"exit status 2\")", trace.Fatal, "all goroutines are asleep - deadlock!", "", "", ""},
		{"shell", "!fails(\"exit status 4\")\nout(\"not run\")", trace.Shell, "exit status 4", "", "", ""},
		{"syntax", "out(\"not run\")\nx := )", trace.Compile, "expected operand, found ')'", "", "", "line 2"},
		{"unknown command", "%nosuch\nout(\"not run\")", trace.Command, "there is no command %nosuch; %help lists those there are", "", "", ""},
		{"command with a typing error", "%whoo", trace.Command, "there is no command %whoo; did you mean %who?", "", "", ""},
		{"other unknown cell", "%%javascript\nx", trace.Command, "there is no command %%javascript; %help lists those there are", "", "", ""},
		{"nothing after the sign", "% \nout(\"not run\")", trace.Command, "a line with nothing but % or !: write a command after it, or take it out", "", "", ""},
		{"command", "%theme pink", trace.Command, `%theme: "pink" is no theme; expected light or dark`, "", "", ""},
		{"compiler", `compiler("{\"status\":\"error\",\"evalue\":\"# gonb_1\\n./main.go:9:2: undefined: x\",\"traceback\":[\"# gonb_1\",\"Cell[@]: Line 1\\nfunc main() { compiler\\n              ^\\nundefined: x\"]}")`,
			trace.Compile, "undefined: x", "", "", "line 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := c.execute(test.code)
			if o.reply["status"] != "error" || o.reply["ename"] != test.kind || o.reply["evalue"] != test.value {
				t.Errorf("the reply is %v, want a %s: %s", o.reply, test.kind, test.value)
			}
			errors := 0
			for i, kind := range o.kinds {
				if kind == "error" {
					errors++
					if diff := cmp.Diff(o.reply["traceback"], o.all[i]["traceback"]); diff != "" {
						t.Errorf("the error published is not that of the reply (-reply +published):\n%s", diff)
					}
					if text := fmt.Sprint(o.all[i]["traceback"]); !strings.Contains(text, test.traceContain) {
						t.Errorf("the traceback lacks %q: %s", test.traceContain, text)
					}
				}
			}
			if errors != 1 {
				t.Errorf("%d errors were published, want one: %v", errors, o.kinds)
			}
			if o.text("stdout") != test.stdout || o.text("stderr") != test.stderr {
				t.Errorf("printed %q and %q, want %q and %q", o.text("stdout"), o.text("stderr"), test.stdout, test.stderr)
			}
		})
	}
}

// A message goes through unchanged, by both of its ways, with what front ends put into headers.
func TestParentHeaderIsTheRequests(t *testing.T) {
	c := startKernel(t)
	m := c.message("execute_request", object{"code": "out(\"a\")"})
	m.RawHeader = []byte(strings.Replace(string(m.RawHeader), "{", `{"subshell_id":null,"x":[1],`, 1))
	if err := c.shell.Send(m.Frames(c.key)...); err != nil {
		t.Fatal(err)
	}
	for {
		got := c.next(c.published, "")
		if string(got.RawParent) != string(m.RawHeader) {
			t.Errorf("%s has the parent %s, want %s", got.Header.Type, got.RawParent, m.RawHeader)
		}
		if got.Header.Session == c.session {
			t.Errorf("%s is signed as if it came from the front end", got.Header.Type)
		}
		if strings.Contains(string(got.Content), "idle") {
			break
		}
	}
}

func TestQueueAfterAnError(t *testing.T) {
	c := startKernel(t)
	run := func(stop bool) []string {
		var requests []*wire.Message
		for _, code := range []string{"sleep(\"300ms\")\nexit(\"exit status 1\")", "out(\"a\")", "out(\"b\")"} {
			requests = append(requests, c.request(c.shell, "execute_request", object{"code": code, "stop_on_error": stop}))
		}
		var status []string
		for _, r := range requests {
			status = append(status, fmt.Sprint(c.collect(r).reply["status"]))
		}
		return status
	}
	if diff := cmp.Diff([]string{"error", "aborted", "aborted"}, run(true)); diff != "" {
		t.Errorf("with stop_on_error (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"error", "ok", "ok"}, run(false)); diff != "" {
		t.Errorf("without (-want +got):\n%s", diff)
	}
	if o := c.execute("out(\"c\")"); o.text("stdout") != "c" {
		t.Errorf("a cell after that prints %q, want c", o.text("stdout"))
	}
}

// Nothing printed is lost, and it keeps its order.
func TestAllThatIsPrintedArrives(t *testing.T) {
	c := startKernel(t)
	o := c.execute("flood(\"20000\")\nerr(\"end\\n\")")
	var want strings.Builder
	for i := range 20_000 {
		fmt.Fprintln(&want, "line", i)
	}
	if got := o.text("stdout"); got != want.String() {
		t.Errorf("%d bytes arrived, want %d", len(got), want.Len())
	}
	if n := len(o.kinds); n > 2000 {
		t.Errorf("20,000 lines came in %d messages: a front end would drop some", n)
	}
	if last := o.kinds[len(o.kinds)-1]; last != "stream" || o.all[len(o.all)-1]["text"] != "end\n" {
		t.Errorf("the last message is %s %v", last, o.all[len(o.all)-1])
	}
}

// Of many updates few arrive, the last one always.
func TestUpdatesAreCoalesced(t *testing.T) {
	c := startKernel(t)
	o := c.execute("display(\"first\")\nupdate(\"2000\")")
	var updates []string
	for i, kind := range o.kinds {
		if kind == "update_display_data" {
			updates = append(updates, o.all[i]["data"].(object)["text/plain"].(string))
		}
	}
	if len(updates) == 0 || len(updates) > 40 || updates[len(updates)-1] != "1999" {
		t.Errorf("%d updates arrived, the last one %q; want a few, the last one 1999", len(updates), updates[max(0, len(updates)-1):])
	}
}

func TestQuestionsOfPrograms(t *testing.T) {
	c := startKernel(t)
	request := c.request(c.shell, "execute_request", object{"code": "ask(\"name?\")", "allow_stdin": true})
	question := c.next(c.asked, "input_request")
	if got := content(t, question); got["prompt"] != "name?" || question.ParentID != request.Header.ID {
		t.Errorf("asked %v", got)
	}
	for _, wrong := range []object{{}, {"value": 3}} { // would end GoNB
		c.request(c.stdin, "input_reply", wrong)
	}
	c.request(c.stdin, "input_reply", object{"value": "Ada"})
	if o := c.collect(request); o.text("stdout") != "got Ada" {
		t.Errorf("the program printed %q", o.text("stdout"))
	}
}

func TestInterrupt(t *testing.T) {
	c := startKernel(t)
	for _, stage := range []struct{ name, code string }{
		{"a program", "program(\"30\")"},
		{"a shell command, and what comes after it", "!program(\"30\")\n!out(\"not run\")\nout(\"not run\")"},
	} {
		request := c.request(c.shell, "execute_request", object{"code": stage.code})
		c.next(c.published, "") // busy
		time.Sleep(200 * time.Millisecond)
		c.request(c.control, "interrupt_request", object{})
		c.next(c.controls, "interrupt_reply")
		o := c.collect(request)
		if o.reply["ename"] != trace.Interrupted || o.text("stdout") != "" {
			t.Errorf("%s: reply %v, printed %q", stage.name, o.reply, o.text("stdout"))
		}
	}
	// One that comes when nothing runs stops nothing later.
	c.request(c.control, "interrupt_request", object{})
	c.next(c.controls, "interrupt_reply")
	if o := c.execute("out(\"a\")"); o.reply["status"] != "ok" {
		t.Errorf("the next cell: %v", o.reply)
	}
}

func TestGonbDies(t *testing.T) {
	c := startKernel(t)
	if o := c.execute("die(\"\")"); o.reply["ename"] != trace.Kernel || !strings.Contains(fmt.Sprint(o.reply["evalue"]), "GoNB died") {
		t.Errorf("the reply is %v, want that GoNB died", o.reply)
	}
	o := c.execute("out(\"again\")")
	if o.reply["status"] != "ok" || o.text("stdout") != "again" || o.text("stderr") != "" {
		t.Errorf("after that: %v %v, want a GoNB that was started again, and that it is not said twice", o.reply, o.all)
	}
}

func TestQuestionsThatGonbDoesNotAnswer(t *testing.T) {
	c := startKernel(t)
	c.execute("out(\"a\")")
	c.execute("result(\"7\")")
	two := 2
	for _, q := range []struct {
		kind  string
		ask   object
		field string
		want  any
	}{
		{"is_complete_request", object{"code": "func f() {"}, "status", "incomplete"},
		{"is_complete_request", object{"code": "x := 1"}, "status", "complete"},
		{"history_request", object{"hist_access_type": "tail", "n": two, "output": true, "raw": true}, "history",
			[]any{[]any{1.0, 1.0, []any{"out(\"a\")", nil}}, []any{1.0, 2.0, []any{"result(\"7\")", "7"}}}},
		{"history_request", object{"hist_access_type": "search", "pattern": "o*", "output": false, "raw": true}, "history", []any{[]any{1.0, 1.0, "out(\"a\")"}}},
		{"comm_info_request", object{}, "comms", object{}},
		{"complete_request", object{"code": "%res", "cursor_pos": 4}, "matches", []any{"%reset", "%restore"}},
		{"inspect_request", object{"code": "%who", "cursor_pos": 4, "detail_level": 0}, "found", true},
		{"debug_request", object{}, "status", "error"}, // front ends ask where they don't look first
		{"create_subshell_request", object{}, "ename", "NotSupported"},
		{"is_complete_request", object{"code": 3}, "status", "error"},
		{"execute_request", object{"code": []int{1}}, "status", "error"},
	} {
		c.request(c.shell, q.kind, q.ask)
		got := content(t, c.next(c.replies, strings.TrimSuffix(q.kind, "_request")+"_reply"))
		if diff := cmp.Diff(q.want, got[q.field]); diff != "" {
			t.Errorf("%s %v: %s (-want +got):\n%s", q.kind, q.ask, q.field, diff)
		}
	}
}

func TestComms(t *testing.T) {
	c := startKernel(t)
	open := func(id, target string) *wire.Message {
		return c.request(c.shell, "comm_open", object{"comm_id": id, "target_name": target, "data": object{}})
	}
	published := func(m *wire.Message, kind string) bool {
		for {
			got := c.next(c.published, "")
			if got.ParentID == m.Header.ID && got.Header.Type == kind {
				return true
			}
			if got.ParentID == m.Header.ID && kind == "comm_close" && strings.Contains(string(got.Content), "idle") {
				return false
			}
		}
	}
	if m := open("a", "jupyter.widget"); !published(m, "comm_close") {
		t.Error("a comm for a target that is not there was not closed")
	}
	if m := open("b", gonbTarget); !published(m, "comm_msg") {
		t.Error("GoNB's comm did not reach it")
	}
	c.request(c.shell, "comm_info_request", object{})
	if diff := cmp.Diff(object{"b": object{"target_name": gonbTarget}}, content(t, c.next(c.replies, "comm_info_reply"))["comms"]); diff != "" {
		t.Errorf("comms (-want +got):\n%s", diff)
	}
}

// What is not signed, or no message at all, neither reaches GoNB, whose fake would end, nor stops the kernel.
func TestHostileMessages(t *testing.T) {
	c := startKernel(t)
	good := func() [][]byte { return c.message("execute_request", object{"code": "out(\"hostile\")"}).Frames(c.key) }
	other := wire.NewKey("another key")
	replayed := good()
	for name, frames := range map[string][][]byte{
		"nothing":               {{}},
		"no delimiter":          {[]byte("a"), []byte("b"), []byte("c"), []byte("d"), []byte("e"), []byte("f")},
		"truncated":             good()[:4],
		"wrong key":             c.message("execute_request", object{"code": "out(\"hostile\")"}).Frames(other),
		"no signature":          append([][]byte{[]byte("<IDS|MSG>"), {}}, good()[2:]...),
		"changed":               append(good()[:5], []byte(`{"code":"die(\"\")"}`)),
		"no JSON":               signed(c, "{", "{}", "{}", "{}"),
		"no type":               signed(c, `{"msg_id":"1"}`, "{}", "{}", "{}"),
		"header of other types": signed(c, `{"msg_id":"1","msg_type":"execute_request","username":5}`, "{}", "{}", "{}"),
		"content is a list":     signed(c, `{"msg_id":"1","msg_type":"execute_request"}`, "{}", "{}", "[]"),
		"parent is null":        signed(c, `{"msg_id":"1","msg_type":"comm_msg"}`, "null", "{}", "{}"),
		"deep":                  signed(c, `{"msg_id":"1","msg_type":"execute_request"}`, "{}", "{}", `{"a":`+strings.Repeat("[", 100_000)),
		"unknown type":          signed(c, `{"msg_id":"1","msg_type":"nonsense"}`, "{}", "{}", "{}"),
	} {
		if err := c.shell.Send(frames...); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := c.stdin.Send(frames...); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if err := c.shell.Send(replayed...); err != nil {
		t.Fatal(err)
	}
	if err := c.shell.Send(replayed...); err != nil { // the second time it is refused
		t.Fatal(err)
	}
	network, address := c.connection.Address(c.connection.Shell)
	for _, raw := range [][]byte{
		[]byte("GET / HTTP/1.1\r\n\r\n"),
		{0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0},
		append(greetingAnd(4, 41), append([]byte("\x05READY\x0bSocket-Type"), 0xff, 0xff, 0xff, 0xff, 'x')...),
		append(greetingAnd(2, 0), binary.BigEndian.AppendUint64(nil, 1<<61)...),
	} {
		conn, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(raw); err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	o := c.execute("out(\"alive\")")
	if o.reply["status"] != "ok" || o.text("stdout") != "alive" || o.reply["execution_count"] != 2.0 { // the one that was sent twice ran once
		t.Errorf("after hostile messages: %v %v", o.reply, o.all)
	}
	if strings.Contains(c.log.String(), "fake GoNB") {
		t.Errorf("something reached GoNB:\n%s", c.log)
	}
}

func signed(c *client, header, parent, metadata, body string) [][]byte {
	m := &wire.Message{RawHeader: []byte(header), RawParent: []byte(parent), Metadata: []byte(metadata), Content: []byte(body)}
	return m.Frames(c.key)
}

// greetingAnd is ZMTP's greeting and the beginning of a frame.
func greetingAnd(flags, size byte) []byte {
	greeting := make([]byte, 64)
	greeting[0], greeting[8], greeting[9], greeting[10] = 0xff, 1, 0x7f, 3
	copy(greeting[12:], "NULL")
	if flags&2 != 0 {
		return append(greeting, flags)
	}
	return append(greeting, flags, size)
}

func TestSilent(t *testing.T) {
	c := startKernel(t)
	o := c.collect(c.request(c.shell, "execute_request", object{"code": "result(\"1\")", "silent": true}))
	if len(o.kinds) != 0 || o.reply["status"] != "ok" || o.reply["execution_count"] != 0.0 {
		t.Errorf("a silent cell: %v, published %v", o.reply, o.kinds)
	}
}

func TestShutdown(t *testing.T) {
	c := startKernel(t)
	c.execute("out(\"a\")")
	c.request(c.control, "shutdown_request", object{"restart": true})
	if got := content(t, c.next(c.controls, "shutdown_reply")); got["restart"] != true || got["status"] != "ok" {
		t.Errorf("the reply is %v", got)
	}
	select {
	case err := <-c.ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
		c.ended <- nil // for the clean-up
	case <-time.After(20 * time.Second):
		t.Error("the kernel does not end")
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), fmt.Sprintf("%s%d-*", dirPrefix, os.Getpid()))); err != nil || len(left) > 0 {
		t.Errorf("left: %q (error %v)", left, err)
	}
}

func TestStaleDirectoriesAreRemoved(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ended := fakeChild("0")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	stale, own, other := fmt.Sprintf("%s%d-1", dirPrefix, ended.Process.Pid), fmt.Sprintf("%s%d-1", dirPrefix, os.Getpid()), "espalier-run-1"
	for _, name := range []string{stale, own, other} {
		if err := os.Mkdir(filepath.Join(os.TempDir(), name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	removeStale()
	entries, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if diff := cmp.Diff([]string{own, other}, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

// FuzzMessages sends whatever to the kernel's sockets: the cell that comes after runs.
func FuzzMessages(f *testing.F) {
	f.Add([]byte("<IDS|MSG>"), uint64(1), true)
	f.Add([]byte("{\"msg_id\":\"1\",\"msg_type\":\"execute_request\"}"), uint64(2), true)
	f.Add([]byte{0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'N', 'U', 'L', 'L'}, uint64(3), false)
	c := startKernel(f)
	f.Fuzz(func(t *testing.T, data []byte, seed uint64, framed bool) {
		c.t = t
		random := rand.New(rand.NewPCG(seed, 1))
		if framed {
			// The bytes in several frames, among them parts of a good message.
			frames := c.message([]string{"execute_request", "complete_request", "comm_open", "history_request", "nonsense"}[random.IntN(5)], object{"code": string(data)}).Frames(c.key)
			for range random.IntN(4) {
				i := random.IntN(len(frames))
				switch random.IntN(3) {
				case 0:
					frames[i] = data
				case 1:
					frames = slices.Delete(frames, i, i+1)
				default:
					frames = slices.Insert(frames, i, data)
				}
				if len(frames) == 0 {
					frames = [][]byte{data}
				}
			}
			for _, s := range []*zmtp.Conn{c.shell, c.stdin, c.control} {
				if err := s.Send(frames...); err != nil {
					t.Fatal(err)
				}
			}
		} else {
			network, address := c.connection.Address(c.connection.Shell)
			conn, err := net.Dial(network, address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = conn.Write(data) // the kernel may have closed it
		}
		request := c.request(c.shell, "execute_request", object{"code": "out(\"alive\")", "stop_on_error": false})
		for m := c.next(c.replies, ""); m.ParentID != request.Header.ID; m = c.next(c.replies, "") {
		}
		for len(c.published) > 0 {
			<-c.published
		}
		if strings.Contains(c.log.String(), "fake GoNB") {
			t.Fatalf("something reached GoNB:\n%s", c.log)
		}
	})
}

// A GoNB that learns late that somebody listens loses no output of the first cell.
func TestLateSubscription(t *testing.T) {
	t.Setenv(fakeVariable, late)
	c := startKernel(t)
	if o := c.execute("out(\"a\")"); o.reply["status"] != "ok" || o.text("stdout") != "a" {
		t.Errorf("the first cell: %v %v", o.reply, o.all)
	}
}

// What VS Code's Jupyter extension sends over a session, in its order and with its fields, and what it looks at of the answers.
func TestVSCode(t *testing.T) {
	c := startKernel(t)
	send := func(s *zmtp.Conn, kind string, content object, metadata string) *wire.Message {
		m := c.message(kind, content)
		m.RawHeader = []byte(fmt.Sprintf(`{"date":"2026-01-02T03:04:05.678Z","msg_id":%q,"msg_type":%q,"session":%q,"username":"","version":"5.2"}`, m.Header.ID, kind, c.session))
		m.Metadata = []byte(metadata)
		if err := s.Send(m.Frames(c.key)...); err != nil {
			t.Fatal(err)
		}
		return m
	}
	// It connects, on both channels, and asks for widgets of a kind that is not there.
	send(c.shell, "kernel_info_request", object{}, "{}")
	info := content(t, c.next(c.replies, "kernel_info_reply"))
	language, _ := info["language_info"].(object)
	if language["name"] != "go" || info["protocol_version"] != wire.Version || info["debugger"] != false {
		t.Errorf("kernel_info: %v", info)
	}
	send(c.control, "kernel_info_request", object{}, "{}")
	c.next(c.controls, "kernel_info_reply")
	send(c.shell, "comm_info_request", object{"target_name": "jupyter.widget"}, "{}")
	if got := content(t, c.next(c.replies, "comm_info_reply")); len(got["comms"].(object)) != 0 {
		t.Errorf("comms: %v", got)
	}
	// It runs a cell, with the cell's address in the metadata.
	m := send(c.shell, "execute_request", object{"code": "out(\"a\")", "silent": false, "store_history": true, "user_expressions": object{}, "allow_stdin": true, "stop_on_error": false},
		`{"cellId":"vscode-notebook-cell:/home/ada/a.ipynb#W0sZmlsZQ%3D%3D"}`)
	if o := c.collect(m); o.reply["status"] != "ok" || o.text("stdout") != "a" {
		t.Errorf("the cell: %v %v", o.reply, o.all)
	}
	// It completes and hovers while the reader types.
	send(c.shell, "complete_request", object{"code": "%wh", "cursor_pos": 3}, "{}")
	if got := content(t, c.next(c.replies, "complete_reply")); got["status"] != "ok" || got["cursor_start"] != 0.0 {
		t.Errorf("completion: %v", got)
	}
	send(c.shell, "inspect_request", object{"code": "%who", "cursor_pos": 2, "detail_level": 0}, "{}")
	if got := content(t, c.next(c.replies, "inspect_reply")); got["found"] != true {
		t.Errorf("hovering: %v", got)
	}
	// It runs code of its own without the reader seeing it, in Python's words where the kernel is not asked first; an error is no harm.
	m = send(c.shell, "execute_request", object{"code": "import sys as _VSCODE_sys", "silent": true, "store_history": false, "user_expressions": object{}, "allow_stdin": false, "stop_on_error": false}, "{}")
	if o := c.collect(m); o.reply["status"] != "error" || len(o.kinds) != 0 {
		t.Errorf("silent code: %v, published %v", o.reply, o.kinds)
	}
	// It interrupts and restarts by messages.
	m = send(c.shell, "execute_request", object{"code": "program(\"30\")", "silent": false}, "{}")
	c.next(c.published, "")
	time.Sleep(200 * time.Millisecond)
	send(c.control, "interrupt_request", object{}, "{}")
	c.next(c.controls, "interrupt_reply")
	if o := c.collect(m); o.reply["ename"] != trace.Interrupted {
		t.Errorf("the cell that was interrupted: %v", o.reply)
	}
	send(c.control, "shutdown_request", object{"restart": true}, "{}")
	c.next(c.controls, "shutdown_reply")
}
